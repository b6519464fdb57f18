//! What a response promised with its `Content-Length`, and what was sent of it (RFC 9110 section 8.6).

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderMap};

/// The bytes of a response body, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    promised: Option<u64>,
    sent: u64,
}

impl Tally {
    /// What these headers promise; `None` where it is no number, or several.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        // There are few headers, so that looking at each is quicker than finding one.
        let lengths = headers.iter().filter(|(name, _)| **name == header::CONTENT_LENGTH);
        let mut values = lengths.map(|(_, value)| value);
        let Some(value) = values.next() else { return Some(Self::default()) };
        let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let promised = text.parse().ok()?;
        values.next().is_none().then_some(Self { promised: Some(promised), sent: 0 })
    }

    /// Promises a length.
    pub(crate) fn promise(length: u64) -> Self {
        Self { promised: Some(length), sent: 0 }
    }

    /// The length that was promised.
    pub(crate) fn promised(self) -> Option<u64> {
        self.promised
    }

    /// How much of the promise is still to be sent.
    pub(crate) fn left(self) -> Option<u64> {
        self.promised.map(|promised| promised.saturating_sub(self.sent))
    }

    /// Counts a block: the part of it that the promise has room for, and whether there was more.
    pub(crate) fn admit(&mut self, block: Bytes) -> (Bytes, bool) {
        let (admitted, excess) = self.admit_length(block.len() as u64);
        if !excess {
            return (block, false);
        }
        // Less than a length that is a usize.
        (block.slice(..usize::try_from(admitted).unwrap_or_default()), true)
    }

    /// Counts so many bytes: how many of them the promise has room for, and whether there were more.
    pub(crate) fn admit_length(&mut self, length: u64) -> (u64, bool) {
        let room = self.promised.map_or(u64::MAX, |promised| promised.saturating_sub(self.sent));
        self.sent = self.sent.saturating_add(length);
        (length.min(room), length > room)
    }

    /// Whether less was sent than promised.
    pub(crate) fn is_short(self) -> bool {
        self.promised.is_some_and(|promised| self.sent < promised)
    }

    /// Whether all was sent that was promised.
    pub(crate) fn is_full(self) -> bool {
        self.promised.is_some_and(|promised| self.sent >= promised)
    }
}

/// `7 bytes, not 5`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, not {}", self.sent, self.promised.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(value: &str) -> Option<Tally> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, value.parse().unwrap());
        Tally::of(&headers)
    }

    #[test]
    fn the_excess_is_cut_off() {
        let mut tally = promise("5").unwrap();
        assert_eq!(tally.admit(Bytes::from_static(b"abc")), (Bytes::from_static(b"abc"), false));
        assert!(tally.is_short());
        assert_eq!(tally.admit(Bytes::from_static(b"defg")), (Bytes::from_static(b"de"), true));
        assert!(tally.is_full() && !tally.is_short());
        assert_eq!(tally.admit(Bytes::from_static(b"h")), (Bytes::new(), true));
    }

    #[test]
    fn without_a_promise_anything_goes() {
        let mut tally = Tally::of(&HeaderMap::new()).unwrap();
        assert_eq!(tally.admit(Bytes::from_static(b"abc")), (Bytes::from_static(b"abc"), false));
        assert!(!tally.is_short() && !tally.is_full());
    }

    #[test]
    fn only_numbers_are_lengths() {
        for value in ["", "-1", "+1", "1, 1", "1e3", "99999999999999999999999", "0x10"] {
            assert_eq!(promise(value), None, "{value:?}");
        }
    }
}
