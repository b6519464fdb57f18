//! Validators and preconditions (RFC 9110 sections 8.8 and 13).

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    ETAG, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue};

/// What tells one state of a file from another.
#[derive(Debug)]
pub(super) struct Validators {
    /// A strong entity tag, with its quotes.
    etag: Option<String>,
    /// The last modification, in whole seconds, never in the future.
    modified: Option<SystemTime>,
    now: SystemTime,
}

/// What the preconditions of a request come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer as if there were none.
    Proceed,
    /// The client has this state already: 304.
    NotModified,
    /// The client wants another state: 412.
    Failed,
}

impl Validators {
    /// The validators of a file. Where all files bear the same first second of 1970 (Nix, `OSTree` and other
    /// reproducible images), the time tells nothing, and a file has none.
    pub(super) fn of(metadata: &Metadata, now: SystemTime) -> Self {
        let since_epoch = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let Some(age) = since_epoch.filter(|age| age.as_secs() > 1) else {
            return Self { etag: None, modified: None, now };
        };
        let etag = format!("\"{:x}-{:x}\"", age.as_nanos(), metadata.len());
        let modified = (UNIX_EPOCH + Duration::from_secs(age.as_secs())).min(now).max(UNIX_EPOCH);
        Self { etag: Some(etag), modified: Some(modified), now }
    }

    /// Writes `ETag` and `Last-Modified`.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        if let Some(etag) = self.etag.as_deref().and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(ETAG, etag);
        }
        if let Some(modified) =
            self.modified.and_then(|time| HeaderValue::try_from(httpdate::fmt_http_date(time)).ok())
        {
            headers.insert(LAST_MODIFIED, modified);
        }
    }

    /// Evaluates the preconditions of a GET or HEAD, in the order of section 13.2.2.
    pub(super) fn check(&self, headers: &HeaderMap) -> Verdict {
        let current = match self.matches(headers, &IF_MATCH, Comparison::Strong) {
            Some(matches) => matches,
            None => self.modified_since(headers, &IF_UNMODIFIED_SINCE).is_none_or(|modified| !modified),
        };
        if !current {
            return Verdict::Failed;
        }
        let known = match self.matches(headers, &IF_NONE_MATCH, Comparison::Weak) {
            Some(matches) => matches,
            None => self.modified_since(headers, &IF_MODIFIED_SINCE).is_some_and(|modified| !modified),
        };
        if known { Verdict::NotModified } else { Verdict::Proceed }
    }

    /// Whether a `Range` counts: there is no `If-Range`, or it names this very state (section 13.1.5).
    pub(super) fn range_counts(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(IF_RANGE) else { return true };
        if let Some(etag) = &self.etag
            && value.as_bytes() == etag.as_bytes()
        {
            return true;
        }
        // A date is a strong validator only when the file cannot have changed again in the same second.
        let (Some(date), Some(modified)) = (date(value), self.modified) else { return false };
        date == modified && self.now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1))
    }

    /// Whether one of the entity tags in a header is this file's; `None` without the header.
    fn matches(&self, headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Option<bool> {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek()?;
        Some(values.any(|value| {
            let value = value.as_bytes().trim_ascii();
            // `*` stands for any state of a file that exists.
            value == b"*"
                || self.etag.as_ref().is_some_and(|etag| {
                    Tags(value).any(|(weak, tag)| {
                        tag == etag.as_bytes() && (!weak || comparison == Comparison::Weak)
                    })
                })
        }))
    }

    /// Whether the file changed after the date in a header; `None` without a valid one.
    fn modified_since(&self, headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
        Some(self.modified? > date(headers.get(name)?)?)
    }
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// The entity tags of a list: whether each is weak, and its opaque part with the quotes. Ends where it cannot be read.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = (bool, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.0.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let rest = &self.0[start..];
        let (weak, rest) = rest.strip_prefix(b"W/").map_or((false, rest), |rest| (true, rest));
        let end = rest.strip_prefix(b"\"")?.iter().position(|byte| *byte == b'"')? + 2;
        let (tag, rest) = rest.split_at(end);
        self.0 = rest;
        Some((weak, tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators() -> Validators {
        let modified = httpdate::parse_http_date(MODIFIED).unwrap();
        Validators {
            etag: Some("\"a\"".into()),
            modified: Some(modified),
            now: modified + Duration::from_secs(60),
        }
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn check(pairs: &[(HeaderName, &str)]) -> Verdict {
        validators().check(&headers(pairs))
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for value in ["\"a\"", "W/\"a\"", "*", "\"b\", \"a\"", "\"x,y\" , W/\"a\""] {
            assert_eq!(check(&[(IF_NONE_MATCH, value)]), Verdict::NotModified, "{value}");
        }
        for value in ["\"b\"", "a", "", "\"a", "\"b\",", "\"\""] {
            assert_eq!(check(&[(IF_NONE_MATCH, value)]), Verdict::Proceed, "{value}");
        }
    }

    #[test]
    fn a_list_may_stand_in_several_lines() {
        let mut lines = headers(&[(IF_NONE_MATCH, "\"b\"")]);
        lines.append(IF_NONE_MATCH, HeaderValue::from_static("\"a\""));
        assert_eq!(validators().check(&lines), Verdict::NotModified);
    }

    #[test]
    fn if_match_compares_strongly() {
        assert_eq!(check(&[(IF_MATCH, "\"a\"")]), Verdict::Proceed);
        assert_eq!(check(&[(IF_MATCH, "*")]), Verdict::Proceed);
        assert_eq!(check(&[(IF_MATCH, "W/\"a\"")]), Verdict::Failed);
        assert_eq!(check(&[(IF_MATCH, "\"b\"")]), Verdict::Failed);
    }

    #[test]
    fn dates() {
        assert_eq!(check(&[(IF_MODIFIED_SINCE, MODIFIED)]), Verdict::NotModified);
        assert_eq!(check(&[(IF_MODIFIED_SINCE, LATER)]), Verdict::NotModified);
        assert_eq!(check(&[(IF_MODIFIED_SINCE, EARLIER)]), Verdict::Proceed);
        assert_eq!(check(&[(IF_MODIFIED_SINCE, "yesterday")]), Verdict::Proceed);
        assert_eq!(check(&[(IF_UNMODIFIED_SINCE, MODIFIED)]), Verdict::Proceed);
        assert_eq!(check(&[(IF_UNMODIFIED_SINCE, EARLIER)]), Verdict::Failed);
        assert_eq!(check(&[(IF_UNMODIFIED_SINCE, "yesterday")]), Verdict::Proceed);
    }

    #[test]
    fn tags_win_over_dates_and_failure_over_304() {
        assert_eq!(check(&[(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, MODIFIED)]), Verdict::Proceed);
        assert_eq!(check(&[(IF_MATCH, "\"a\""), (IF_UNMODIFIED_SINCE, EARLIER)]), Verdict::Proceed);
        assert_eq!(check(&[(IF_MATCH, "\"b\""), (IF_NONE_MATCH, "\"a\"")]), Verdict::Failed);
        assert_eq!(check(&[(IF_MATCH, "\"a\""), (IF_NONE_MATCH, "\"a\"")]), Verdict::NotModified);
    }

    #[test]
    fn if_range_wants_the_same_state() {
        let counts = |value: &str| validators().range_counts(&headers(&[(IF_RANGE, value)]));
        assert!(validators().range_counts(&HeaderMap::new()));
        assert!(counts("\"a\""));
        assert!(counts(MODIFIED));
        for value in ["W/\"a\"", "\"b\"", EARLIER, LATER, "x"] {
            assert!(!counts(value), "{value}");
        }
        let fresh = Validators { now: httpdate::parse_http_date(MODIFIED).unwrap(), ..validators() };
        assert!(!fresh.range_counts(&headers(&[(IF_RANGE, MODIFIED)])));
    }

    #[test]
    fn times_that_tell_nothing_are_not_told() {
        let file = tempfile::tempfile().unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        let validators = Validators::of(&file.metadata().unwrap(), SystemTime::now());
        let mut written = HeaderMap::new();
        validators.write(&mut written);
        assert!(written.is_empty());
        assert_eq!(validators.check(&headers(&[(IF_NONE_MATCH, "*")])), Verdict::NotModified);
        assert_eq!(validators.check(&headers(&[(IF_MATCH, "\"a\"")])), Verdict::Failed);
    }

    #[test]
    fn a_time_to_come_is_not_told_as_such() {
        let now = SystemTime::now();
        let file = tempfile::tempfile().unwrap();
        file.set_modified(now + Duration::from_secs(3600)).unwrap();
        assert_eq!(Validators::of(&file.metadata().unwrap(), now).modified, Some(now));
    }
}
