//! What a line looks like.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use hawksbill_core::time::{Rfc3339, Utc};
use http::Version;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::LogFormat;

/// All that a line can tell.
pub(super) struct Line<'a> {
    pub(super) time: SystemTime,
    pub(super) ip: Option<IpAddr>,
    pub(super) unix: bool,
    pub(super) port: Option<u16>,
    pub(super) method: &'a str,
    pub(super) host: Option<&'a [u8]>,
    pub(super) uri: &'a str,
    pub(super) version: Version,
    pub(super) status: u16,
    pub(super) bytes: u64,
    pub(super) duration: Duration,
    pub(super) site: Option<&'a str>,
    pub(super) referer: Option<&'a [u8]>,
    pub(super) user_agent: Option<&'a [u8]>,
    pub(super) request_id: Option<&'a [u8]>,
    pub(super) error: Option<&'a str>,
    pub(super) aborted: bool,
}

thread_local! {
    /// Each line is put together here, so that it costs no allocation.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Puts a line together, with its end, and gives it to `push`.
pub(super) fn write_line(format: LogFormat, line: &Line<'_>, push: impl FnOnce(&[u8])) {
    let written = |buffer: &RefCell<Vec<u8>>| {
        let mut buffer = buffer.borrow_mut();
        buffer.clear();
        match format {
            LogFormat::Combined => line.combined(&mut buffer),
            LogFormat::Common => line.common(&mut buffer),
            LogFormat::Json => line.json(&mut buffer),
        }
        buffer.push(b'\n');
        push(&buffer);
    };
    // A thread that is at its end has no buffer any more; what it drops then goes unlogged.
    let _ = BUFFER.try_with(written);
}

impl Line<'_> {
    fn common(&self, out: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = write!(out, "{} - - [{}] \"{} ", self.client(), LocalTime(self.time), self.method);
        escape(self.uri.as_bytes(), out);
        let _ = write!(out, " {}\" {} {}", protocol(self.version), self.status, self.bytes);
    }

    fn combined(&self, out: &mut Vec<u8>) {
        self.common(out);
        for header in [self.referer, self.user_agent] {
            out.extend_from_slice(b" \"");
            match header {
                Some(value) if !value.is_empty() => escape(value, out),
                _ => out.push(b'-'),
            }
            out.push(b'"');
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        let start = out.len();
        if serde_json::to_writer(&mut *out, self).is_err() {
            out.truncate(start);
        }
    }

    fn client(&self) -> Client {
        Client { ip: self.ip, unix: self.unix }
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Line", 16)?;
        line.serialize_field("time", &AsText(Rfc3339(self.time)))?;
        if self.ip.is_some() || self.unix {
            line.serialize_field("client", &AsText(self.client()))?;
        }
        if let Some(port) = self.port {
            line.serialize_field("port", &port)?;
        }
        line.serialize_field("method", self.method)?;
        if let Some(host) = self.host {
            line.serialize_field("host", &String::from_utf8_lossy(host))?;
        }
        line.serialize_field("uri", self.uri)?;
        line.serialize_field("protocol", protocol(self.version))?;
        line.serialize_field("status", &self.status)?;
        line.serialize_field("bytes", &self.bytes)?;
        line.serialize_field("duration", &self.duration.as_secs_f64())?;
        if let Some(site) = self.site {
            line.serialize_field("site", site)?;
        }
        let headers =
            [("referer", self.referer), ("user_agent", self.user_agent), ("request_id", self.request_id)];
        for (name, header) in headers {
            if let Some(value) = header {
                line.serialize_field(name, &String::from_utf8_lossy(value))?;
            }
        }
        if let Some(error) = self.error {
            line.serialize_field("error", error)?;
        }
        if self.aborted {
            line.serialize_field("aborted", &true)?;
        }
        line.end()
    }
}

/// Who asked; `unix:` as nginx has it, `-` where nothing is known.
struct Client {
    ip: Option<IpAddr>,
    unix: bool,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => ip.fmt(f),
            None if self.unix => f.write_str("unix:"),
            None => f.write_str("-"),
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Writes what a client sent so that it can end neither its field nor its line: quotes, backslashes, control characters
/// and whatever is not ASCII become `\xHH`, as nginx does it.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            out.push(byte);
        } else {
            let [high, low] = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            out.extend_from_slice(&[b'\\', b'x', high, low]);
        }
    }
}

/// Serializes as what it displays, without a string in between.
struct AsText<T>(T);

impl<T: fmt::Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// `21/Nov/2026:01:44:10 +0000`.
struct LocalTime(SystemTime);

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let Utc { year, month, day, hour, minute, second, .. } = Utc::of(self.0);
        let month = MONTHS.get(month - 1).copied().unwrap_or_default();
        write!(f, "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn line() -> Line<'static> {
        Line {
            time: UNIX_EPOCH + Duration::from_millis(1_795_225_450_123),
            ip: Some("203.0.113.7".parse().unwrap()),
            unix: false,
            port: Some(4711),
            method: "GET",
            host: Some(b"example.com"),
            uri: "/a?b=c",
            version: Version::HTTP_11,
            status: 200,
            bytes: 2326,
            duration: Duration::from_micros(1_234_567),
            site: Some("example.com"),
            referer: None,
            user_agent: Some(b"Mozilla/5.0 \"x\""),
            request_id: None,
            error: None,
            aborted: false,
        }
    }

    fn written(format: LogFormat, line: &Line<'_>) -> String {
        let mut text = String::new();
        write_line(format, line, |bytes| text.push_str(std::str::from_utf8(bytes).unwrap()));
        text
    }

    #[test]
    fn the_combined_format() {
        assert_eq!(
            written(LogFormat::Combined, &line()),
            "203.0.113.7 - - [21/Nov/2026:01:44:10 +0000] \"GET /a?b=c HTTP/1.1\" 200 2326 \"-\" \
             \"Mozilla/5.0 \\x22x\\x22\"\n"
        );
    }

    #[test]
    fn the_common_format() {
        let unix = Line { ip: None, unix: true, version: Version::HTTP_2, ..line() };
        assert_eq!(
            written(LogFormat::Common, &unix),
            "unix: - - [21/Nov/2026:01:44:10 +0000] \"GET /a?b=c HTTP/2.0\" 200 2326\n"
        );
    }

    #[test]
    fn the_json_format() {
        assert_eq!(
            written(LogFormat::Json, &line()),
            "{\"time\":\"2026-11-21T01:44:10.123Z\",\"client\":\"203.0.113.7\",\"port\":4711,\"method\":\"GET\",\
             \"host\":\"example.com\",\"uri\":\"/a?b=c\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes\":2326,\
             \"duration\":1.234567,\"site\":\"example.com\",\"user_agent\":\"Mozilla/5.0 \\\"x\\\"\"}\n"
        );
        let failed = Line {
            error: Some("502 Bad Gateway"),
            aborted: true,
            ip: None,
            port: None,
            site: None,
            ..line()
        };
        let text = written(LogFormat::Json, &failed);
        assert!(text.ends_with(",\"error\":\"502 Bad Gateway\",\"aborted\":true}\n"), "{text}");
        assert!(!text.contains("client") && !text.contains("port") && !text.contains("site"));
    }

    proptest! {
        #[test]
        fn no_header_forges_a_line(agent in proptest::collection::vec(any::<u8>(), 0..60), uri in "/\\PC{0,20}") {
            let line = Line { user_agent: Some(&agent), referer: Some(&agent), host: Some(&agent), uri: &uri, ..line() };
            for format in [LogFormat::Combined, LogFormat::Json] {
                let text = written(format, &line);
                prop_assert!(text.bytes().take(text.len() - 1).all(|byte| byte >= b' '));
                prop_assert!(text.ends_with('\n'));
                if format == LogFormat::Json {
                    prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
                } else {
                    prop_assert_eq!(text.matches('"').count(), 6);
                    prop_assert!(text.is_ascii());
                }
            }
        }
    }
}
