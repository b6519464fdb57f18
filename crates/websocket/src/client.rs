//! The opening handshake, client side (RFC 6455 section 4.1): for tests, and for a proxy that speaks to an upstream.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};

use crate::error::EncodeError;
use crate::extension::{self, DeflateConfig};
use crate::handshake::{Agreement, HandshakeError, accept_key, has_token, once};

/// One attempt to open a WebSocket over HTTP/1.1: makes the request's headers and checks the response.
///
/// ```
/// use hawksbill_websocket::client::ClientHandshake;
/// use hawksbill_websocket::handshake::{Acceptance, OpeningHandshake};
///
/// let client = ClientHandshake::new()?.subprotocol("chat");
/// let mut request = http::Request::get("/live").body(())?;
/// request.headers_mut().extend(client.headers());
///
/// let opening = OpeningHandshake::from_request(&request)?;
/// let (response, _) = opening.accept(Acceptance { subprotocol: Some("chat"), ..Acceptance::default() })?;
/// assert_eq!(client.verify(&response)?.subprotocol.as_deref(), Some("chat"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientHandshake {
    key: String,
    subprotocols: Vec<String>,
    deflate: Option<DeflateConfig>,
}

impl ClientHandshake {
    /// An attempt with a fresh random key.
    ///
    /// # Errors
    /// [`EncodeError::NoRandomness`] where the operating system gives no random bytes.
    pub fn new() -> Result<Self, EncodeError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| EncodeError::NoRandomness)?;
        Ok(Self { key: STANDARD.encode(nonce), subprotocols: Vec::new(), deflate: None })
    }

    /// Offers a subprotocol, after those offered before. A name that is no token (RFC 9110 section 5.6.2) is left out.
    pub fn subprotocol(mut self, name: &str) -> Self {
        if !name.is_empty() && name.chars().all(crate::handshake::is_token_char) {
            self.subprotocols.push(name.to_owned());
        }
        self
    }

    /// Offers compression.
    pub fn deflate(mut self, config: DeflateConfig) -> Self {
        self.deflate = Some(config);
        self
    }

    /// The request's headers, apart from `Host`.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        // Both are made of token characters alone, so neither conversion fails.
        if let Ok(key) = HeaderValue::from_str(&self.key) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        if !self.subprotocols.is_empty()
            && let Ok(offered) = HeaderValue::from_str(&self.subprotocols.join(", "))
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offered);
        }
        if let Some(config) = &self.deflate {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, extension::offer(config));
        }
        headers
    }

    /// Checks the server's answer and reads what was agreed.
    ///
    /// # Errors
    /// What is wrong with the response (RFC 6455 section 4.1, the list after the request).
    pub fn verify<B>(&self, response: &Response<B>) -> Result<Agreement, HandshakeError> {
        let headers = response.headers();
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(HandshakeError::Status(response.status()));
        }
        if !has_token(headers, &CONNECTION, "upgrade") || !has_token(headers, &UPGRADE, "websocket") {
            return Err(HandshakeError::NotUpgrade);
        }
        if once(headers, SEC_WEBSOCKET_ACCEPT)?.as_bytes() != accept_key(self.key.as_bytes()) {
            return Err(HandshakeError::Accept);
        }
        let subprotocol = if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            let chosen = once(headers, SEC_WEBSOCKET_PROTOCOL)?;
            let known = self.subprotocols.iter().find(|offered| *offered == chosen);
            Some(known.ok_or(HandshakeError::Subprotocol)?.clone())
        } else {
            None
        };
        let deflate = extension::confirm(headers, self.deflate.as_ref())?;
        Ok(Agreement { subprotocol, deflate })
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::handshake::{Acceptance, OpeningHandshake};

    fn answered(client: &ClientHandshake) -> Response<()> {
        let mut request = Request::get("/").body(()).unwrap();
        *request.headers_mut() = client.headers();
        let config = DeflateConfig::default();
        let acceptance = Acceptance { deflate: Some(&config), ..Acceptance::default() };
        OpeningHandshake::from_request(&request).unwrap().accept(acceptance).unwrap().0
    }

    #[test]
    fn accepts_an_answer_to_its_own_key_only() {
        let client = ClientHandshake::new().unwrap();
        assert_eq!(client.verify(&answered(&client)), Ok(Agreement::default()));
        let other = ClientHandshake::new().unwrap();
        assert_eq!(client.verify(&answered(&other)), Err(HandshakeError::Accept));
    }

    #[test]
    fn refuses_what_it_did_not_ask_for() {
        let client = ClientHandshake::new().unwrap().subprotocol("a").subprotocol("no token");
        let change = |name, value| {
            let mut response = answered(&client);
            response.headers_mut().insert(name, HeaderValue::from_static(value));
            client.verify(&response)
        };
        assert_eq!(change(SEC_WEBSOCKET_PROTOCOL, "a").unwrap().subprotocol.as_deref(), Some("a"));
        assert_eq!(change(SEC_WEBSOCKET_PROTOCOL, "b"), Err(HandshakeError::Subprotocol));
        assert_eq!(change(SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate"), Err(HandshakeError::Extension));
        assert_eq!(change(UPGRADE, "h2c"), Err(HandshakeError::NotUpgrade));
        let refusal = HandshakeError::UnsupportedVersion.to_response();
        assert_eq!(client.verify(&refusal), Err(HandshakeError::Status(StatusCode::UPGRADE_REQUIRED)));
    }

    #[test]
    fn agrees_on_compression() {
        let client = ClientHandshake::new().unwrap().deflate(DeflateConfig::default());
        assert!(client.verify(&answered(&client)).unwrap().deflate.is_some());
    }
}
