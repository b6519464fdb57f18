//! A request's path as routing reads it (RFC 3986 section 6.2.2).
//!
//! Percent-escapes are decoded within a segment, empty segments (`//`) are passed over, dot segments are resolved, in
//! their escaped forms too. `%2F` stands for a slash *inside* a segment and separates nothing. What cannot be read, or
//! climbs above the root, is refused.
//!
//! An application may read the same path otherwise: WSGI and ASGI hand it over fully decoded, and few resolve dot
//! segments. [`RequestPath::flat`] gives that reading, so that a table can refuse a path which means two things.

use std::borrow::Cow;
use std::fmt;

/// Why a path is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathError {
    BadEscape,
    Nul,
    AboveRoot,
}

/// A path that has been read once, and is kept as it came.
#[derive(Debug)]
pub(crate) struct RequestPath<'a> {
    raw: &'a str,
    /// What is left of the segments once dot segments are resolved; `None`: there are no dot segments.
    resolved: Option<Vec<&'a str>>,
    has_encoded_slash: bool,
}

impl<'a> RequestPath<'a> {
    /// Reads a path, still percent-encoded and without a query. A path without dot segments needs no memory.
    pub(crate) fn read(raw: &'a str) -> Result<Self, PathError> {
        let mut has_encoded_slash = false;
        let mut has_dots = false;
        for segment in raw_segments(raw) {
            if segment.contains('%') {
                has_encoded_slash |= check_escapes(segment)?;
            }
            has_dots |= Dots::of(segment).is_some();
        }
        let resolved =
            if has_dots { Some(resolve(raw_segments(raw), |segment| Dots::of(segment))?) } else { None };
        Ok(Self { raw, resolved, has_encoded_slash })
    }

    /// The segments that routing goes by, decoded.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Cow<'a, [u8]>> {
        self.kept().map(decode)
    }

    /// Whether an application that decodes first and splits then, or does not resolve dot segments, sees another path.
    pub(crate) fn has_other_readings(&self) -> bool {
        self.resolved.is_some() || self.has_encoded_slash
    }

    /// The path decoded in one piece, so that an escaped slash has become a slash.
    ///
    /// With dot segments as they came, or as they are seen behind a mount: resolved.
    pub(crate) fn flat(&self, dots: DotSegments) -> Vec<u8> {
        let mut flat = Vec::with_capacity(self.raw.len());
        let mut add = |segment| {
            flat.push(b'/');
            flat.extend_from_slice(&decode(segment));
        };
        match dots {
            DotSegments::AsTheyCame => raw_segments(self.raw).for_each(&mut add),
            DotSegments::Resolved => self.kept().for_each(&mut add),
        }
        flat
    }

    /// What is left of the path behind its first `depth` segments, still percent-encoded.
    ///
    /// It is what the client sent, `//` and escapes included, unless there are dot segments to be resolved.
    pub(crate) fn rest(&self, depth: usize) -> Cow<'a, str> {
        let Some(resolved) = &self.resolved else { return Cow::Borrowed(behind(self.raw, depth)) };
        let mut rest = String::with_capacity(self.raw.len());
        for segment in resolved.iter().skip(depth) {
            rest.push('/');
            rest.push_str(segment);
        }
        // `/a/`, `/a/.` and `/a/b/..` all name the directory.
        let last = self.raw.rsplit('/').next().unwrap_or_default();
        if last.is_empty() || Dots::of(last).is_some() {
            rest.push('/');
        }
        Cow::Owned(rest)
    }

    fn kept(&self) -> impl Iterator<Item = &'a str> {
        let (as_they_are, resolved) = match &self.resolved {
            None => (Some(raw_segments(self.raw)), None),
            Some(resolved) => (None, Some(resolved.iter().copied())),
        };
        as_they_are.into_iter().flatten().chain(resolved.into_iter().flatten())
    }
}

/// What becomes of dot segments in [`RequestPath::flat`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum DotSegments {
    AsTheyCame,
    Resolved,
}

/// The segments of a flat path. None of them is empty.
pub(crate) fn split(flat: &[u8]) -> impl Iterator<Item = &[u8]> {
    flat.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty())
}

/// The segments of a flat path with its dot segments resolved.
pub(crate) fn split_and_resolve(flat: &[u8]) -> Result<Vec<&[u8]>, PathError> {
    // It is decoded: what looks like an escape now was an escaped percent sign.
    resolve(split(flat), |segment| match *segment {
        b"." => Some(Dots::Here),
        b".." => Some(Dots::Up),
        _ => None,
    })
}

/// Takes dot segments out (RFC 3986 section 5.2.4), and refuses to climb above the root.
fn resolve<T>(
    segments: impl Iterator<Item = T>,
    dots: impl Fn(&T) -> Option<Dots>,
) -> Result<Vec<T>, PathError> {
    let mut kept = Vec::new();
    for segment in segments {
        match dots(&segment) {
            None => kept.push(segment),
            Some(Dots::Here) => {}
            Some(Dots::Up) => drop(kept.pop().ok_or(PathError::AboveRoot)?),
        }
    }
    Ok(kept)
}

/// The segments of a path, still percent-encoded. Several slashes separate as one does.
pub(crate) fn raw_segments(raw: &str) -> impl Iterator<Item = &str> {
    raw.split('/').filter(|segment| !segment.is_empty())
}

fn behind(raw: &str, depth: usize) -> &str {
    let mut rest = raw;
    for _ in 0..depth {
        let segment = rest.trim_start_matches('/');
        rest = &segment[segment.find('/').unwrap_or(segment.len())..];
    }
    rest
}

/// A dot segment, in any of its spellings: `.`, `..`, `%2e`, `.%2E`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dots {
    Here,
    Up,
}

impl Dots {
    fn of(raw_segment: &str) -> Option<Self> {
        let rest = after_dot(raw_segment.as_bytes())?;
        if rest.is_empty() {
            return Some(Self::Here);
        }
        after_dot(rest)?.is_empty().then_some(Self::Up)
    }
}

fn after_dot(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Checks the escapes of a segment, and tells whether one of them is a slash.
fn check_escapes(segment: &str) -> Result<bool, PathError> {
    let mut has_slash = false;
    for escape in segment.split('%').skip(1) {
        match escape.as_bytes() {
            [b'0', b'0', ..] => return Err(PathError::Nul),
            [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                has_slash |= *high == b'2' && low.eq_ignore_ascii_case(&b'f');
            }
            _ => return Err(PathError::BadEscape),
        }
    }
    Ok(has_slash)
}

fn decode(segment: &str) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(segment).into()
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadEscape => "a percent sign is not followed by two hexadecimal digits",
            Self::Nul => "the path has a NUL",
            Self::AboveRoot => "the path climbs above the root",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> Result<Vec<String>, PathError> {
        let path = RequestPath::read(raw)?;
        Ok(path.segments().map(|segment| String::from_utf8_lossy(&segment).into_owned()).collect())
    }

    #[test]
    fn spellings_of_one_path() {
        for (raw, segments) in [
            ("/", &[][..]),
            ("", &[]),
            ("//", &[]),
            ("/a/b", &["a", "b"]),
            ("/a/b/", &["a", "b"]),
            ("//a///b", &["a", "b"]),
            ("/%61/%7Eb", &["a", "~b"]),
            ("/A/b", &["A", "b"]),
            ("/a/./b", &["a", "b"]),
            ("/a/x/../b", &["a", "b"]),
            ("/a/x/%2E./b/%2e", &["a", "b"]),
            ("/a//../b", &["b"]),
            ("/a/..", &[]),
            ("/...", &["..."]),
            ("/.a/..b/%2e%2e%2e", &[".a", "..b", "..."]),
            ("/a%2Fb", &["a/b"]),
            ("/a%2f..", &["a/.."]),
            ("/%252e%252e", &["%2e%2e"]),
            ("/caf%C3%A9", &["café"]),
            ("/café", &["café"]),
        ] {
            assert_eq!(normal(raw).unwrap(), segments, "{raw}");
        }
    }

    #[test]
    fn malformed_paths() {
        for (raw, why) in [
            ("/%", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%zz", PathError::BadEscape),
            ("/%/4", PathError::BadEscape),
            ("/%é", PathError::BadEscape),
            ("/a%00b", PathError::Nul),
            ("/..", PathError::AboveRoot),
            ("/a/../..", PathError::AboveRoot),
            ("/a/%2e%2E/.%2e/a", PathError::AboveRoot),
            ("//..//", PathError::AboveRoot),
        ] {
            assert_eq!(normal(raw), Err(why), "{raw}");
        }
    }

    #[test]
    fn the_rest_is_what_came() {
        for (raw, depth, rest) in [
            ("/blog", 1, ""),
            ("/blog/", 1, "/"),
            ("/blog//x", 1, "//x"),
            ("//blog/x%2Fy/", 1, "/x%2Fy/"),
            ("/%62log/%7Ex", 1, "/%7Ex"),
            ("/a/b/c", 2, "/c"),
            ("/a//b", 0, "/a//b"),
            ("/x/../blog/a", 1, "/a"),
            ("/blog/./a/", 1, "/a/"),
            ("/blog/a/..", 1, "/"),
            ("/x/../blog", 1, ""),
            ("/x/..", 0, "/"),
        ] {
            assert_eq!(RequestPath::read(raw).unwrap().rest(depth), rest, "{raw}");
        }
    }

    #[test]
    fn the_usual_path_is_not_copied() {
        let path = RequestPath::read("/static/css//base.css").unwrap();
        assert!(path.resolved.is_none());
        assert!(path.segments().all(|segment| matches!(segment, Cow::Borrowed(_))));
        assert!(matches!(path.rest(1), Cow::Borrowed("/css//base.css")));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(raw in "(/|\\.|%2e|%2F|%25|%00|a|é|%|\\PC){0,24}", depth in 0_usize..4) {
            let Ok(path) = RequestPath::read(&raw) else { return Ok(()) };
            prop_assert!(path.segments().all(|segment| !matches!(&*segment, b"" | b"." | b"..")));
            // The rest means the same as the segments that it stands for.
            let rest = path.rest(depth);
            let again = RequestPath::read(&rest).unwrap();
            let expected: Vec<_> = path.segments().skip(depth).collect();
            prop_assert_eq!(again.segments().collect::<Vec<_>>(), expected);
        }
    }
}
