//! Where in the config tree a value stands: `apps.shop.env`, `listen[1]`, `sites."example.com"."/"`.

use std::fmt;

/// One step into the config tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Into a table, by key.
    Key(String),
    /// Into an array, by position from 0.
    Index(usize),
}

/// The way from the root of the config tree to a value, written as TOML writes it.
///
/// ```
/// use hawksbill_core::config::Path;
///
/// let route = Path::root().key("sites").key("example.com").key("/").index(1);
/// assert_eq!(route.to_string(), r#"sites."example.com"."/"[1]"#);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Segment>);

impl Path {
    /// The whole config.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// The value under `key`.
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.join(Segment::Key(key.into()))
    }

    /// The element at `index`, from 0.
    pub fn index(&self, index: usize) -> Self {
        self.join(Segment::Index(index))
    }

    /// The steps, from the root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this is the whole config.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    fn join(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// Puts the steps of `outer` before these.
    pub(super) fn prepend(&mut self, outer: &[Segment]) {
        self.0.splice(0..0, outer.iter().cloned());
    }

    /// ` in [apps.shop]`, as it ends a sentence about a key; nothing at the root.
    pub(super) fn as_table(&self) -> String {
        if self.is_root() {
            String::new()
        } else if self.0.iter().all(|segment| matches!(segment, Segment::Key(_))) {
            format!(" in [{self}]")
        } else {
            format!(" in {self}")
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if !key.is_empty() && key.chars().all(bare) {
                        f.write_str(key)?;
                    } else {
                        write!(f, "{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted_where_toml_wants_it() {
        let path = Path::root().index(0).key("a-b_1").key("").key("ü\"");
        assert_eq!(path.to_string(), r#"[0].a-b_1.""."ü\"""#);
    }

    #[test]
    fn a_path_through_keys_alone_is_named_as_a_table_header() {
        assert_eq!(Path::root().as_table(), "");
        assert_eq!(Path::root().key("apps").key("shop").as_table(), " in [apps.shop]");
        assert_eq!(Path::root().key("routes").index(1).as_table(), " in routes[1]");
    }
}
