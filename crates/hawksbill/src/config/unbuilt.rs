//! Keys that the design names and this version does not have: refused by name, never ignored.

/// At the top level.
pub(super) const TOP: &[&str] = &["tls", "channels", "queue", "user", "group", "http3"];

/// In an application's table.
pub(super) const APP: &[&str] = &["fastcgi", "uwsgi", "scgi", "cgi", "php", "queue"];

/// In a route's table: application kinds and conditions.
pub(super) const ROUTE: &[&str] =
    &["when", "split", "fastcgi", "uwsgi", "scgi", "cgi", "php", "proxy", "timeout", "tls"];

/// Layers, by their names in `layers = [...]` and as short keys.
pub(super) const LAYER: &[&str] =
    &["allow", "deny", "cache", "compress", "rate_limit", "session", "headers", "timeout", "python", "auth"];

/// In a site's table.
pub(super) const SITE: &[&str] = &["tls", "split", "when", "max_header"];
