//! Where in a site's paths an application stands.

use std::sync::Arc;

/// The path prefix an application is mounted at, in the extensions of each request that reaches it.
///
/// It becomes `SCRIPT_NAME` (PEP 3333) and `root_path` (ASGI HTTP scope). The request's URI is left as the client sent
/// it; [`Mount::split`] says which part of it belongs to whom.
///
/// ```
/// use hawksbill_core::Mount;
///
/// let mount = Mount::new("/blog");
/// assert_eq!(mount.split("/blog/2026/"), ("/blog", "/2026/"));
/// assert_eq!(mount.split("/blog"), ("/blog", ""));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    prefix: Arc<str>,
    rest: Option<Arc<str>>,
}

impl Mount {
    /// The prefix, without a slash at its end, as it stands (percent-encoded) in the request's path.
    pub fn new(prefix: impl Into<Arc<str>>) -> Self {
        Self { prefix: prefix.into(), rest: None }
    }

    /// For a request that reached the mount by another spelling of the prefix (`//blog`, `/%62log`, `/x/../blog`): the
    /// rest of its path, which then cannot be found by cutting the prefix off.
    pub fn with_rest(self, rest: impl Into<Arc<str>>) -> Self {
        Self { rest: Some(rest.into()), ..self }
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The rest of the path where it cannot be found by cutting the prefix off.
    pub fn rest(&self) -> Option<&str> {
        self.rest.as_deref()
    }

    /// Splits a request's path (still percent-encoded) into the mount and what the application is asked for.
    pub fn split<'a>(&'a self, path: &'a str) -> (&'a str, &'a str) {
        let rest = match &self.rest {
            Some(rest) => rest,
            None => path.strip_prefix(&*self.prefix).unwrap_or(path),
        };
        (&self.prefix, rest)
    }
}
