//! The `Range` header (RFC 9110 section 14).

use std::ops::Range;

/// More ranges than this are answered with the whole file: each costs a part of its own, and no honest client asks for
/// so many.
const MOST_RANGES: usize = 16;

/// Which bytes of a file are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of them: no range, one that cannot be read, or one that is not worth honouring.
    Whole,
    /// One range: 206 with `Content-Range`.
    One(Range<u64>),
    /// Several: 206 with `multipart/byteranges`.
    Several(Vec<Range<u64>>),
    /// None of the ranges lies in the file: 416.
    Unsatisfiable,
}

/// Selects from a file of `size` bytes. A header that cannot be read is ignored, as section 14.2 has it.
pub(super) fn select(header: &[u8], size: u64) -> Selection {
    let Some(ranges) = std::str::from_utf8(header).ok().and_then(|text| parse(text, size)) else {
        return Selection::Whole;
    };
    // Ranges that overlap may ask for a file many times over; sending it once is the smaller answer.
    let asked = ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.end - range.start));
    match ranges.as_slice() {
        [] if size == 0 => Selection::Whole,
        [] => Selection::Unsatisfiable,
        [only] => Selection::One(only.clone()),
        more if more.len() > MOST_RANGES || asked > size => Selection::Whole,
        _ => Selection::Several(ranges),
    }
}

/// The satisfiable ranges; `None` when the header is malformed, or counts in another unit than bytes.
fn parse(header: &str, size: u64) -> Option<Vec<Range<u64>>> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut ranges = Vec::new();
    let mut any = false;
    for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()) {
        any = true;
        let (first, last) = spec.split_once('-')?;
        let range = if first.is_empty() {
            size.saturating_sub(number(last)?)..size
        } else {
            let first = number(first)?;
            let last = if last.is_empty() { u64::MAX } else { number(last)? };
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        };
        if range.start < range.end {
            ranges.push(range);
        }
    }
    any.then_some(ranges)
}

/// Digits alone; what is too large for us is larger than any file.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Selection::{One, Several, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn single_ranges() {
        let cases: &[(&str, Selection)] = &[
            ("bytes=0-0", One(0..1)),
            ("bytes=2-4", One(2..5)),
            ("bytes=2-", One(2..10)),
            ("bytes=-3", One(7..10)),
            ("bytes=-30", One(0..10)),
            ("bytes=5-99999999999999999999999999", One(5..10)),
            ("bytes=0-18446744073709551615", One(0..10)),
            ("Bytes= 1-2 ,", One(1..3)),
            ("bytes=1-2,20-30", One(1..3)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99999999999999999999999999-", Unsatisfiable),
        ];
        for (header, expected) in cases {
            assert_eq!(&select(header.as_bytes(), 10), expected, "{header}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=4-2",
            "lines=1-2",
            "bytes=1-2,x",
            "bytes=+1-2",
            "bytes=1--2",
        ] {
            assert_eq!(select(header.as_bytes(), 10), Whole, "{header}");
        }
        assert_eq!(select(b"bytes=\xff-", 10), Whole);
    }

    #[test]
    fn several_ranges_keep_their_order() {
        assert_eq!(select(b"bytes=-2, 0-1", 10), Several(vec![8..10, 0..2]));
    }

    #[test]
    fn more_than_the_file_is_the_file() {
        assert_eq!(select(b"bytes=0-,0-,0-", 10), Whole);
        let many = format!("bytes={}", (0..17).map(|i| format!("{i}-{i}")).collect::<Vec<_>>().join(","));
        assert_eq!(select(many.as_bytes(), 1000), Whole);
    }

    #[test]
    fn an_empty_file_has_no_ranges() {
        for header in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            assert_eq!(select(header.as_bytes(), 0), Whole, "{header}");
        }
    }

    proptest! {
        #[test]
        fn ranges_lie_in_the_file(header in "(bytes=)?([0-9]{0,21}-?[0-9]{0,21},? ?){0,6}|\\PC{0,20}", size in 0u64..1000) {
            match select(header.as_bytes(), size) {
                One(range) => prop_assert!(range.start < range.end && range.end <= size),
                Several(ranges) => {
                    prop_assert!(ranges.len() > 1 && ranges.iter().all(|range| range.start < range.end && range.end <= size));
                    prop_assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= size);
                }
                Whole => {}
                Unsatisfiable => prop_assert!(size > 0),
            }
        }

        #[test]
        fn what_a_client_means_is_what_it_gets(first in 0u64..100, length in 1u64..100, size in 200u64..300) {
            let header = format!("bytes={first}-{}", first + length - 1);
            prop_assert_eq!(select(header.as_bytes(), size), One(first..first + length));
        }
    }
}
