//! Negotiating permessage-deflate (RFC 7692 section 7) in `Sec-WebSocket-Extensions` (RFC 6455 section 9.1).

use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};

use crate::handshake::HandshakeError;

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// What this end wants of permessage-deflate.
///
/// The default remembers nothing between messages in either direction: an idle connection then costs no memory, and one
/// compressed message can be sent to many connections. Allowing context takeover compresses small, alike messages
/// better, at up to 270 KB a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeflateConfig {
    /// The server compresses each message by itself.
    pub server_no_context_takeover: bool,
    /// The client compresses each message by itself.
    pub client_no_context_takeover: bool,
    /// The base-2 logarithm of the window that the server compresses with: 9 to 15.
    pub server_max_window_bits: u8,
    /// The base-2 logarithm of the window that the client compresses with: 9 to 15.
    pub client_max_window_bits: u8,
    /// 0 (none) to 9 (best).
    pub level: u32,
    /// Messages of fewer bytes are sent as they are.
    pub threshold: usize,
}

impl Default for DeflateConfig {
    fn default() -> Self {
        Self {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
            level: 3,
            threshold: 128,
        }
    }
}

/// What both ends agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeflateParams {
    /// The server compresses each message by itself.
    pub server_no_context_takeover: bool,
    /// The client compresses each message by itself.
    pub client_no_context_takeover: bool,
    /// The base-2 logarithm of the window that the server compresses with: 9 to 15 (8 where this end is the client).
    pub server_max_window_bits: u8,
    /// The base-2 logarithm of the window that the client compresses with: 8 to 15.
    pub client_max_window_bits: u8,
    /// This end's compression level, 0 to 9; the peer does not learn it.
    pub level: u32,
    /// This end sends messages of fewer bytes as they are; the peer does not learn it.
    pub threshold: usize,
}

fn write_flag(out: &mut String, name: &str, on: bool) {
    if on {
        out.push_str("; ");
        out.push_str(name);
    }
}

fn write_bits(out: &mut String, name: &str, bits: u8) {
    out.push_str("; ");
    out.push_str(name);
    out.push('=');
    out.push_str(&bits.to_string());
}

/// Header values made of this module's own words, which are ASCII.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(NAME))
}

/// One element of the header: a name and its parameters, in order.
#[derive(Debug, PartialEq, Eq)]
struct Extension {
    name: String,
    params: Vec<(String, Option<String>)>,
}

/// The server's choice among the offers of a request: the first that it can meet, or `None` for no compression.
///
/// An offer with an unknown, repeated or invalid parameter is declined (RFC 7692 section 7.1), and so is one that wants
/// a server window of 8 bits, which the compressor cannot make.
///
/// Gives what was agreed, and the value of the response's `Sec-WebSocket-Extensions`.
///
/// # Errors
/// [`HandshakeError::Malformed`] for a header that does not follow the grammar of RFC 6455 section 9.1.
pub fn negotiate(
    headers: &HeaderMap,
    config: &DeflateConfig,
) -> Result<Option<(DeflateParams, HeaderValue)>, HandshakeError> {
    let offers = parse(headers)?;
    Ok(offers.iter().filter(|offer| offer.name == NAME).find_map(|offer| answer(offer, config)))
}

/// The value of a request's `Sec-WebSocket-Extensions` that asks for `config`.
pub fn offer(config: &DeflateConfig) -> HeaderValue {
    let mut out = String::from(NAME);
    write_flag(&mut out, SERVER_NO_CONTEXT_TAKEOVER, config.server_no_context_takeover);
    write_flag(&mut out, CLIENT_NO_CONTEXT_TAKEOVER, config.client_no_context_takeover);
    if config.server_max_window_bits < 15 {
        write_bits(&mut out, SERVER_MAX_WINDOW_BITS, config.server_max_window_bits.max(9));
    }
    if config.client_max_window_bits < 15 {
        write_bits(&mut out, CLIENT_MAX_WINDOW_BITS, config.client_max_window_bits.max(9));
    } else {
        // Without a value: the server may ask for any window.
        write_flag(&mut out, CLIENT_MAX_WINDOW_BITS, true);
    }
    ascii(&out)
}

/// The client's reading of the response to [`offer`]: what was agreed, or `None` where the server declined.
///
/// # Errors
/// [`HandshakeError::Extension`] where the server answers something that was not offered or that cannot be met.
pub fn confirm(
    headers: &HeaderMap,
    offered: Option<&DeflateConfig>,
) -> Result<Option<DeflateParams>, HandshakeError> {
    let answers = parse(headers)?;
    match (answers.as_slice(), offered) {
        ([], _) => Ok(None),
        ([answer], Some(offered)) if answer.name == NAME => {
            let params = Params::read(&answer.params).ok_or(HandshakeError::Extension)?;
            params.confirm(offered).map(Some).ok_or(HandshakeError::Extension)
        }
        _ => Err(HandshakeError::Extension),
    }
}

/// The parameters of one offer or answer.
#[derive(Default)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: ClientWindow,
}

/// `client_max_window_bits`, whose value an offer may leave out.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ClientWindow {
    #[default]
    Absent,
    /// Present, without a value: the client can limit its window as the server likes.
    Any,
    Bits(u8),
}

impl Params {
    /// `None` where a parameter is unknown, repeated or has a value that it cannot have.
    fn read(params: &[(String, Option<String>)]) -> Option<Self> {
        let mut read = Self::default();
        for (name, value) in params {
            let fresh = match (name.as_str(), value) {
                (SERVER_NO_CONTEXT_TAKEOVER, None) => {
                    !std::mem::replace(&mut read.server_no_context_takeover, true)
                }
                (CLIENT_NO_CONTEXT_TAKEOVER, None) => {
                    !std::mem::replace(&mut read.client_no_context_takeover, true)
                }
                (SERVER_MAX_WINDOW_BITS, Some(bits)) => {
                    read.server_max_window_bits.replace(parse_bits(bits)?).is_none()
                }
                (CLIENT_MAX_WINDOW_BITS, bits) => {
                    let window = match bits {
                        None => ClientWindow::Any,
                        Some(bits) => ClientWindow::Bits(parse_bits(bits)?),
                    };
                    std::mem::replace(&mut read.client_max_window_bits, window) == ClientWindow::Absent
                }
                _ => false,
            };
            if !fresh {
                return None;
            }
        }
        Some(read)
    }

    /// A client's check of what a server answered to `offered`.
    fn confirm(&self, offered: &DeflateConfig) -> Option<DeflateParams> {
        let server_limit = offered.server_max_window_bits.clamp(9, 15);
        let server_bits = self.server_max_window_bits.unwrap_or(15);
        let client_bits = match self.client_max_window_bits {
            ClientWindow::Absent => 15,
            // Only an offer may leave the value out.
            ClientWindow::Any => return None,
            ClientWindow::Bits(bits) => bits,
        };
        // Both must be honoured once asked for, and 8 bits cannot be compressed with here.
        let refused = (offered.server_no_context_takeover && !self.server_no_context_takeover)
            || server_bits > server_limit
            || client_bits < 9;
        if refused {
            return None;
        }
        Some(DeflateParams {
            server_no_context_takeover: self.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover || offered.client_no_context_takeover,
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits.min(offered.client_max_window_bits.clamp(9, 15)),
            level: offered.level,
            threshold: offered.threshold,
        })
    }
}

/// A server's answer to one offer, or `None` to decline it.
fn answer(offer: &Extension, config: &DeflateConfig) -> Option<(DeflateParams, HeaderValue)> {
    let asked = Params::read(&offer.params)?;
    let server_max_window_bits =
        config.server_max_window_bits.clamp(9, 15).min(asked.server_max_window_bits.unwrap_or(15));
    if server_max_window_bits < 9 {
        return None;
    }
    let wanted = config.client_max_window_bits.clamp(9, 15);
    let client_max_window_bits = match asked.client_max_window_bits {
        // The client's window may be limited only where the client said that it can (RFC 7692 section 7.1.2.2).
        ClientWindow::Absent => 15,
        ClientWindow::Any => wanted,
        ClientWindow::Bits(bits) => bits.min(wanted),
    };
    let params = DeflateParams {
        server_no_context_takeover: asked.server_no_context_takeover || config.server_no_context_takeover,
        client_no_context_takeover: asked.client_no_context_takeover || config.client_no_context_takeover,
        server_max_window_bits,
        client_max_window_bits,
        level: config.level,
        threshold: config.threshold,
    };
    let mut value = String::from(NAME);
    write_flag(&mut value, SERVER_NO_CONTEXT_TAKEOVER, params.server_no_context_takeover);
    write_flag(&mut value, CLIENT_NO_CONTEXT_TAKEOVER, params.client_no_context_takeover);
    // An offer with this parameter is accepted by repeating it, even at its default (RFC 7692 section 7.1.2.1).
    if asked.server_max_window_bits.is_some() || server_max_window_bits < 15 {
        write_bits(&mut value, SERVER_MAX_WINDOW_BITS, server_max_window_bits);
    }
    if client_max_window_bits < 15 {
        write_bits(&mut value, CLIENT_MAX_WINDOW_BITS, client_max_window_bits);
    }
    Some((params, ascii(&value)))
}

/// 8 to 15, in decimal and without a leading zero.
fn parse_bits(value: &str) -> Option<u8> {
    match value {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

/// All elements of all `Sec-WebSocket-Extensions` fields, in order.
fn parse(headers: &HeaderMap) -> Result<Vec<Extension>, HandshakeError> {
    let malformed = HandshakeError::Malformed(SEC_WEBSOCKET_EXTENSIONS);
    let mut extensions = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        let text = value.to_str().map_err(|_| malformed.clone())?;
        let mut cursor = Cursor(text);
        loop {
            // Empty elements are allowed in lists (RFC 9110 section 5.6.1).
            while cursor.eat(',') {}
            if cursor.at_end() {
                break;
            }
            extensions.push(cursor.extension().ok_or_else(|| malformed.clone())?);
            if !cursor.at_end() && !cursor.eat(',') {
                return Err(malformed);
            }
        }
    }
    Ok(extensions)
}

/// A reader of the header's grammar; each step skips the spaces before what it reads.
struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn at_end(&mut self) -> bool {
        self.skip_spaces();
        self.0.is_empty()
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.skip_spaces();
        match self.0.strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn extension(&mut self) -> Option<Extension> {
        let name = self.token()?.to_ascii_lowercase();
        let mut params = Vec::new();
        while self.eat(';') {
            let name = self.token()?.to_ascii_lowercase();
            let value = if self.eat('=') { Some(self.value()?) } else { None };
            params.push((name, value));
        }
        Some(Extension { name, params })
    }

    fn token(&mut self) -> Option<String> {
        self.skip_spaces();
        let end = self.0.find(|c| !crate::handshake::is_token_char(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { None } else { Some(token.to_owned()) }
    }

    /// A token, or a quoted string whose content is one (RFC 6455 section 9.1).
    fn value(&mut self) -> Option<String> {
        if !self.eat('"') {
            return self.token();
        }
        let mut out = String::new();
        let mut chars = self.0.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => out.push(chars.next()?),
                c => out.push(c),
            }
        }
        self.0 = chars.as_str();
        let is_token = !out.is_empty() && out.chars().all(crate::handshake::is_token_char);
        is_token.then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|v| (SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(v).unwrap())).collect()
    }

    fn takeover() -> DeflateConfig {
        DeflateConfig {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            ..DeflateConfig::default()
        }
    }

    /// The response's value, or "" for none.
    fn answered(offers: &[&str], config: &DeflateConfig) -> String {
        let params = negotiate(&headers(offers), config).unwrap();
        params.map(|(_, value)| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn offers_and_answers() {
        let cases = [
            ("permessage-deflate", "permessage-deflate"),
            ("Permessage-Deflate", "permessage-deflate"),
            ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
            (
                "permessage-deflate; client_max_window_bits=\"10\"",
                "permessage-deflate; client_max_window_bits=10",
            ),
            (
                "permessage-deflate; server_max_window_bits=10",
                "permessage-deflate; server_max_window_bits=10",
            ),
            (
                "permessage-deflate; server_max_window_bits=15",
                "permessage-deflate; server_max_window_bits=15",
            ),
            (
                "permessage-deflate;server_no_context_takeover ; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ),
            // The second offer is the fallback of one that cannot be met.
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "permessage-deflate"),
            ("foo; bar=1, , permessage-deflate", "permessage-deflate"),
            ("x-webkit-deflate-frame", ""),
            ("permessage-deflate; server_max_window_bits=8", ""),
            ("permessage-deflate; server_max_window_bits=16", ""),
            ("permessage-deflate; server_max_window_bits=09", ""),
            ("permessage-deflate; server_max_window_bits", ""),
            ("permessage-deflate; client_max_window_bits=7", ""),
            ("permessage-deflate; server_no_context_takeover=1", ""),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", ""),
            ("permessage-deflate; unknown", ""),
        ];
        for (offer, expected) in cases {
            assert_eq!(answered(&[offer], &takeover()), expected, "{offer}");
        }
        assert_eq!(answered(&["foo", "permessage-deflate"], &takeover()), "permessage-deflate");
        assert_eq!(answered(&[], &takeover()), "");
    }

    #[test]
    fn the_server_narrows_what_it_may() {
        let config = DeflateConfig {
            server_max_window_bits: 12,
            client_max_window_bits: 11,
            ..DeflateConfig::default()
        };
        assert_eq!(
            answered(&["permessage-deflate; client_max_window_bits"], &config),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=12; client_max_window_bits=11"
        );
        // The client did not say that it can limit its own window.
        assert!(!answered(&["permessage-deflate"], &config).contains(CLIENT_MAX_WINDOW_BITS));
    }

    #[test]
    fn malformed_headers_are_errors() {
        for value in ["permessage-deflate;", "a b", "a; b=", "a; b=\"x", "a; b=\"x y\"", "=", "a;;b", "a=1"] {
            let result = negotiate(&headers(&[value]), &DeflateConfig::default());
            assert_eq!(result, Err(HandshakeError::Malformed(SEC_WEBSOCKET_EXTENSIONS)), "{value}");
        }
    }

    #[test]
    fn a_client_checks_the_answer() {
        let config = DeflateConfig { server_max_window_bits: 12, ..DeflateConfig::default() };
        let confirm = |value: &str| confirm(&headers(&[value]), Some(&config));
        let agreed = confirm("permessage-deflate; server_no_context_takeover; server_max_window_bits=10");
        let agreed = agreed.unwrap().unwrap();
        assert_eq!((agreed.server_max_window_bits, agreed.client_no_context_takeover), (10, true));
        for value in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=8",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits",
            "foo",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=12, foo",
        ] {
            assert_eq!(confirm(value), Err(HandshakeError::Extension), "{value}");
        }
        assert_eq!(super::confirm(&HeaderMap::new(), Some(&config)), Ok(None));
        assert_eq!(super::confirm(&headers(&["permessage-deflate"]), None), Err(HandshakeError::Extension));
    }

    proptest! {
        #[test]
        fn both_ends_agree(
            client in config_strategy(), server in config_strategy(),
        ) {
            let request = HeaderMap::from_iter([(SEC_WEBSOCKET_EXTENSIONS, offer(&client))]);
            let (chosen, value) = negotiate(&request, &server).unwrap().unwrap();
            let response = HeaderMap::from_iter([(SEC_WEBSOCKET_EXTENSIONS, value)]);
            let agreed = confirm(&response, Some(&client)).unwrap().unwrap();
            prop_assert_eq!(agreed, DeflateParams { level: client.level, threshold: client.threshold, ..chosen });
        }

        #[test]
        fn parsing_never_panics(value in "[ -~]{0,60}") {
            let _ = negotiate(&headers(&[&value]), &DeflateConfig::default());
        }
    }

    fn config_strategy() -> impl Strategy<Value = DeflateConfig> {
        (any::<bool>(), any::<bool>(), 9..=15_u8, 9..=15_u8, 0..=9_u32).prop_map(|(s, c, sb, cb, level)| {
            DeflateConfig {
                server_no_context_takeover: s,
                client_no_context_takeover: c,
                server_max_window_bits: sb,
                client_max_window_bits: cb,
                level,
                threshold: 0,
            }
        })
    }
}
