//! The path prefix of a route, as a configuration writes it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::path::{PathError, RequestPath, raw_segments};

/// Longer than any path that people type, and short enough to be walked by recursion.
const LONGEST: usize = 4096;

/// What a `pchar` of RFC 3986 section 3.3 cannot be.
const NOT_IN_SEGMENTS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// A prefix in its one spelling: no slash at its end, percent-encoded where a path must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    encoded: Arc<str>,
    segments: Vec<Vec<u8>>,
}

impl Prefix {
    /// `/blog`, or the empty text for the root: as `SCRIPT_NAME` is written.
    pub(crate) fn encoded(&self) -> &Arc<str> {
        &self.encoded
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().map(Vec::as_slice)
    }
}

/// Why a text is not a path prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrefixError {
    /// It does not begin with a slash.
    NoSlash,
    /// It is longer than 4096 bytes.
    TooLong,
    /// It has a query or a fragment.
    Query,
    /// It has a segment `.` or `..`, perhaps escaped.
    DotSegment,
    /// It has a control character, perhaps escaped.
    ControlCharacter,
    /// It has an escaped slash, which is part of a segment and would never match a path.
    EncodedSlash,
    /// It has a percent sign that begins no escape.
    BadEscape,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if !text.starts_with('/') {
            return Err(PrefixError::NoSlash);
        }
        if text.len() > LONGEST {
            return Err(PrefixError::TooLong);
        }
        if text.contains(['?', '#']) {
            return Err(PrefixError::Query);
        }
        let path = RequestPath::read(text).map_err(|error| match error {
            PathError::BadEscape => PrefixError::BadEscape,
            PathError::Nul => PrefixError::ControlCharacter,
            PathError::AboveRoot => PrefixError::DotSegment,
        })?;
        let segments: Vec<Vec<u8>> =
            raw_segments(text).map(|raw| percent_decode_str(raw).collect()).collect();
        if segments.iter().flatten().any(u8::is_ascii_control) {
            return Err(PrefixError::ControlCharacter);
        }
        if segments.iter().flatten().any(|byte| *byte == b'/') {
            return Err(PrefixError::EncodedSlash);
        }
        if path.has_other_readings() {
            return Err(PrefixError::DotSegment);
        }
        let encoded: String = segments
            .iter()
            .flat_map(|segment| ["/".into(), percent_encode(segment, NOT_IN_SEGMENTS).to_string()])
            .collect();
        Ok(Self { encoded: encoded.into(), segments })
    }
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlash => "does not begin with '/'; write it as \"/static\"",
            Self::TooLong => "is longer than 4096 bytes",
            Self::Query => "has a query or a fragment; a route is chosen by the path alone",
            Self::DotSegment => "has a segment '.' or '..'; write the path that it stands for",
            Self::ControlCharacter => "has a control character",
            Self::EncodedSlash => "has an escaped slash (%2F), which is part of a segment; write '/'",
            Self::BadEscape => {
                "has a '%' that is not followed by two hexadecimal digits; write '%25' for the sign itself"
            }
        })
    }
}

impl std::error::Error for PrefixError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_one_spelling() {
        for (text, encoded) in [
            ("/", ""),
            ("//", ""),
            ("/blog", "/blog"),
            ("/blog/", "/blog"),
            ("//blog//2026", "/blog/2026"),
            ("/%62log", "/blog"),
            ("/café", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/two words", "/two%20words"),
            ("/@me/%40you;v=1", "/@me/@you;v=1"),
            ("/100%25", "/100%25"),
        ] {
            assert_eq!(&**text.parse::<Prefix>().unwrap().encoded(), encoded, "{text}");
        }
    }

    #[test]
    fn malformed_prefixes() {
        for (text, why) in [
            ("", PrefixError::NoSlash),
            ("static", PrefixError::NoSlash),
            ("*", PrefixError::NoSlash),
            ("/a?b=c", PrefixError::Query),
            ("/a#b", PrefixError::Query),
            ("/a/../b", PrefixError::DotSegment),
            ("/%2e/b", PrefixError::DotSegment),
            ("/..", PrefixError::DotSegment),
            ("/a\nb", PrefixError::ControlCharacter),
            ("/a%0Ab", PrefixError::ControlCharacter),
            ("/a%00b", PrefixError::ControlCharacter),
            ("/a%2Fb", PrefixError::EncodedSlash),
            ("/100%", PrefixError::BadEscape),
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(why), "{text:?}");
        }
        assert_eq!("/x".repeat(2049).parse::<Prefix>(), Err(PrefixError::TooLong));
    }
}
