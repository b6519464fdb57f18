//! Longest prefix by whole segments.

use std::collections::HashMap;

/// A tree of path segments. Finding costs one hash for each segment, whatever the number of entries.
#[derive(Debug)]
pub(crate) struct Trie<T> {
    value: Option<T>,
    below: HashMap<Box<[u8]>, Trie<T>>,
}

/// What was found, and after how many segments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found<'t, T> {
    pub(crate) value: &'t T,
    pub(crate) depth: usize,
}

impl<T> Trie<T> {
    pub(crate) fn new() -> Self {
        Self { value: None, below: HashMap::new() }
    }

    /// The place of exactly this prefix.
    pub(crate) fn slot<'s>(&mut self, segments: impl Iterator<Item = &'s [u8]>) -> &mut Option<T> {
        let mut node = self;
        for segment in segments {
            node = node.below.entry(segment.into()).or_insert_with(Self::new);
        }
        &mut node.value
    }

    /// The entry whose prefix is the longest that these segments begin with.
    pub(crate) fn longest<S: AsRef<[u8]>>(&self, segments: impl Iterator<Item = S>) -> Option<Found<'_, T>> {
        let mut node = self;
        let mut found = node.value.as_ref().map(|value| Found { value, depth: 0 });
        for (index, segment) in segments.enumerate() {
            let Some(next) = node.below.get(segment.as_ref()) else { break };
            node = next;
            if let Some(value) = &node.value {
                found = Some(Found { value, depth: index + 1 });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> impl Iterator<Item = &[u8]> {
        path.split('/').filter(|segment| !segment.is_empty()).map(str::as_bytes)
    }

    #[test]
    fn the_longest_wins_and_gaps_are_passed() {
        let mut trie = Trie::new();
        for prefix in ["/a", "/a/b/c/d", "/b"] {
            *trie.slot(segments(prefix)) = Some(prefix);
        }
        let find = |path| trie.longest(segments(path)).map(|found| (*found.value, found.depth));
        assert_eq!(find("/a/b/c/x"), Some(("/a", 1)));
        assert_eq!(find("/a/b/c/d/e"), Some(("/a/b/c/d", 4)));
        assert_eq!(find("/b"), Some(("/b", 1)));
        assert_eq!(find("/bb"), None);
        assert_eq!(find("/"), None);
    }

    #[test]
    fn the_root_takes_what_is_left() {
        let mut trie = Trie::new();
        *trie.slot(segments("/")) = Some(1);
        assert_eq!(trie.longest(segments("/x/y")).map(|found| found.depth), Some(0));
    }
}
