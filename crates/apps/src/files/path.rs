//! From the path of a request to the name of a file, relative to the directory that is served.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use hawksbill_core::{Error, Kind};
use percent_encoding::percent_decode_str;

/// What a request asks for. Made of ordinary names alone, so that joined to a directory it stays beneath it (as long
/// as no symbolic link leads out, which is for [`super::open`] to see).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FilePath {
    /// Names joined by single slashes; empty for the directory that is served itself.
    relative: OsString,
    /// Whether the path ends with a slash, and so asks for a directory.
    pub(super) directory: bool,
}

impl FilePath {
    /// Reads the (percent-encoded) path of a request, as it stands behind the mount.
    ///
    /// # Errors
    /// 400 for what is no path; 404 for what never names a file here: dot segments, hidden names (`.well-known`, RFC 8615,
    /// is none at the top), encoded slashes and backslashes.
    pub(super) fn parse(path: &str) -> Result<Self, Error> {
        let inner = match path.strip_prefix('/') {
            Some(inner) => inner,
            None if path.is_empty() => return Ok(Self { relative: OsString::new(), directory: false }),
            None => return Err(refused(Kind::BadRequest, "does not begin with a slash", path)),
        };
        let mut relative = Vec::with_capacity(inner.len());
        for segment in inner.split('/').filter(|segment| !segment.is_empty()) {
            let top = relative.is_empty();
            if !top {
                relative.push(b'/');
            }
            let start = relative.len();
            if !well_encoded(segment) {
                return Err(refused(Kind::BadRequest, "has a '%' without two hexadecimal digits", path));
            }
            relative.extend(percent_decode_str(segment));
            let name = &relative[start..];
            if name.contains(&0) {
                return Err(refused(Kind::BadRequest, "has a NUL in it", path));
            }
            if name.contains(&b'/') || name.contains(&b'\\') {
                return Err(refused(Kind::NotFound, "has an encoded slash or a backslash in a name", path));
            }
            if name.starts_with(b".") && !(top && name == b".well-known") {
                return Err(refused(Kind::NotFound, "has a name that begins with a dot", path));
            }
        }
        Ok(Self {
            relative: OsString::from_vec(relative),
            directory: inner.is_empty() || inner.ends_with('/'),
        })
    }

    /// The path beneath the directory; `.` for that directory itself.
    pub(super) fn relative(&self) -> &OsStr {
        if self.relative.is_empty() { OsStr::new(".") } else { &self.relative }
    }

    /// The path of a name in the directory that this path names.
    pub(super) fn child(&self, name: &str) -> OsString {
        Path::new(&self.relative).join(name).into_os_string()
    }
}

fn well_encoded(segment: &str) -> bool {
    segment.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    })
}

fn refused(kind: Kind, rule: &str, path: &str) -> Error {
    Error::new(kind).because(format!("files: the path {path:?} {rule}"))
}

/// Whether `name` can be a configured index: one ordinary name.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && !OsStr::new(name).as_bytes().iter().any(|b| matches!(b, 0 | b'/' | b'\\'))
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn relative(path: &str) -> OsString {
        FilePath::parse(path).unwrap().relative().to_owned()
    }

    fn status(path: &str) -> u16 {
        FilePath::parse(path).unwrap_err().status().as_u16()
    }

    #[test]
    fn names_are_decoded_and_joined() {
        assert_eq!(relative("/css/x.css"), "css/x.css");
        assert_eq!(relative("/css//%78.css"), "css/x.css");
        assert_eq!(relative("/gr%C3%BC%C3%9Fe"), "grüße");
        assert_eq!(relative("/%ff%FE"), OsStr::from_bytes(b"\xff\xfe"));
        assert_eq!(relative("/"), ".");
        assert_eq!(relative("/.well-known/acme"), ".well-known/acme");
        assert_eq!(relative("/a b"), "a b");
    }

    #[test]
    fn a_slash_at_the_end_asks_for_a_directory() {
        assert!(FilePath::parse("/").unwrap().directory);
        assert!(FilePath::parse("/css/").unwrap().directory);
        assert!(!FilePath::parse("/css").unwrap().directory);
        assert!(!FilePath::parse("").unwrap().directory);
        assert_eq!(FilePath::parse("/").unwrap().child("index.html"), "index.html");
        assert_eq!(FilePath::parse("/css/").unwrap().child("index.html"), "css/index.html");
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for path in [
            "/..",
            "/../x",
            "/a/%2e%2E/b",
            "/.",
            "/.git/config",
            "/a/.env",
            "/a/.well-known/x",
            "/.well-known2",
        ] {
            assert_eq!(status(path), 404, "{path}");
        }
        for path in ["/a%2fb", "/a%5Cb", "/..\\x", "/a\\b"] {
            assert_eq!(status(path), 404, "{path}");
        }
        for path in ["/a%00", "/%", "/%4", "/%zz", "/a%%41", "*"] {
            assert_eq!(status(path), 400, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_root(path in "/?([a.%/\\\\]|%2[eEfF]|%5c|%00|\\.\\.|.well-known|[ -~]|\\PC){0,20}") {
            if let Ok(parsed) = FilePath::parse(&path) {
                let relative = Path::new(&parsed.relative);
                prop_assert!(relative.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(!parsed.relative.as_bytes().contains(&0));
                prop_assert!(Path::new("/srv/static").join(relative).starts_with("/srv/static"));
                let mut names = parsed.relative.as_bytes().split(|byte| *byte == b'/');
                let hidden_top = names.next().is_some_and(|top| top.starts_with(b".") && top != b".well-known");
                prop_assert!(!hidden_top && !names.any(|name| name.starts_with(b".")));
            }
        }
    }
}
