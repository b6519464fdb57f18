//! Where a value came from: a place in a file, or a named place such as a flag.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A config file: its name as the user knows it, and its text. Cloning is a reference count.
#[derive(Clone, Debug)]
pub struct Source(Arc<SourceFile>);

#[derive(Debug)]
struct SourceFile {
    name: String,
    text: String,
}

impl Source {
    /// A file called `name` (in messages) that holds `text`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self(Arc::new(SourceFile { name: name.into(), text: text.into() }))
    }

    /// The file's name, as messages give it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The place of the bytes `span` in this file. A span beyond the text is cut to it.
    pub fn origin(&self, span: Range<usize>) -> Origin {
        Origin(Place::File { source: self.clone(), span })
    }

    /// Line and column of the byte at `offset`.
    fn position(&self, offset: usize) -> Position {
        let text = self.text();
        let before = text.get(..floor_char_boundary(text, offset)).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

/// A place in a text; both numbers count from 1, columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// Where a key or a value came from. Cheap to clone; an origin may be unknown.
///
/// ```
/// use hawksbill_core::config::{Origin, Source};
///
/// let file = Source::new("hawksbill.toml", "workers = 2\n");
/// assert_eq!(file.origin(10..11).to_string(), "hawksbill.toml:1:11");
/// assert_eq!(Origin::named("flag --workers").to_string(), "flag --workers");
/// assert!(!Origin::unknown().is_known());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Origin(Place);

#[derive(Clone, Debug, Default)]
enum Place {
    #[default]
    Unknown,
    Named(Arc<str>),
    /// In a file whose text is not at hand.
    At(Arc<str>, Position),
    File {
        source: Source,
        span: Range<usize>,
    },
}

impl Origin {
    /// No place is known.
    pub const fn unknown() -> Self {
        Self(Place::Unknown)
    }

    /// A place that is no file: `flag --listen`, `environment variable HAWKSBILL_LISTEN`, `Gateway(listen=...)`.
    pub fn named(name: impl AsRef<str>) -> Self {
        Self(Place::Named(Arc::from(name.as_ref())))
    }

    /// A place in a file whose text is not at hand: there is no excerpt of it.
    pub(super) fn at(name: &str, position: Position) -> Self {
        Self(Place::At(Arc::from(name), position))
    }

    /// Whether there is a place to show.
    pub fn is_known(&self) -> bool {
        !matches!(self.0, Place::Unknown)
    }

    /// The name of what this is a place in or of: a file, a flag.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.0 {
            Place::File { source, .. } => Some(source.name()),
            Place::Named(name) | Place::At(name, _) => Some(name),
            Place::Unknown => None,
        }
    }

    /// The file, if this is a place in one whose text is at hand.
    pub fn source(&self) -> Option<&Source> {
        match &self.0 {
            Place::File { source, .. } => Some(source),
            Place::Named(_) | Place::At(..) | Place::Unknown => None,
        }
    }

    /// Line and column where the value begins, if this is a place in a file.
    pub fn position(&self) -> Option<Position> {
        match &self.0 {
            Place::File { source, span } => Some(source.position(span.start)),
            Place::At(_, position) => Some(*position),
            Place::Named(_) | Place::Unknown => None,
        }
    }

    /// The line of the file with carets under the value, in plain text, without a newline at the end.
    ///
    /// `None` where there is no file, and for lines too long to be read on a screen.
    pub(super) fn excerpt(&self) -> Option<String> {
        let Place::File { source, span } = &self.0 else { return None };
        let text = source.text();
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end).max(start);
        let line_start = text.get(..start)?.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text.get(start..)?.find('\n').map_or(text.len(), |newline| start + newline);
        let line = text.get(line_start..line_end)?.trim_end_matches('\r');
        if line.trim().is_empty() || line.chars().count() > LONGEST_EXCERPT {
            return None;
        }
        let number = self.position()?.line.to_string();
        let gutter = " ".repeat(number.len());
        let indent: String =
            text.get(line_start..start)?.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let marked = text.get(start..end.min(line_end))?.trim_end().chars().count().max(1);
        let carets = "^".repeat(marked);
        let shown: String = line.chars().map(printable).collect();
        Some(format!("{gutter} |\n{number} | {shown}\n{gutter} | {indent}{carets}"))
    }
}

/// Lines longer than this many characters are not repeated in messages.
const LONGEST_EXCERPT: usize = 200;

/// Control characters would move the terminal's cursor (or worse): they are shown as a replacement.
fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

/// The greatest character boundary at or before `offset`.
fn floor_char_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Unknown => f.write_str("an unknown place"),
            Place::Named(name) => f.write_str(name),
            Place::At(name, Position { line, column }) => write!(f, "{name}:{line}:{column}"),
            Place::File { source, span } => {
                let Position { line, column } = source.position(span.start);
                write!(f, "{}:{line}:{column}", source.name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let file = Source::new("f", "ä = 1\r\nß = 'é'\n");
        let at = |needle: &str| {
            let start = file.text().find(needle).unwrap();
            file.origin(start..start + needle.len()).position().unwrap()
        };
        assert_eq!(at("1"), Position { line: 1, column: 5 });
        assert_eq!(at("'é'"), Position { line: 2, column: 5 });
    }

    #[test]
    fn excerpts_keep_tabs_and_replace_control_characters() {
        let file = Source::new("f", "\n\tkey = '\u{1b}[31m'\r\n");
        assert_eq!(file.origin(2..5).excerpt().unwrap(), "  |\n2 | \tkey = '\u{fffd}[31m'\n  | \t^^^");
    }

    #[test]
    fn spans_beyond_the_text_or_inside_a_character_are_cut() {
        let file = Source::new("f", "é");
        assert_eq!(file.origin(1..99).position(), Some(Position { line: 1, column: 1 }));
        assert_eq!(file.origin(50..99).excerpt().unwrap(), "  |\n1 | é\n  |  ^");
        assert_eq!(Source::new("f", "").origin(0..1).excerpt(), None);
    }

    #[test]
    fn a_span_of_several_lines_is_marked_on_its_first() {
        let file = Source::new("f", "a = [\n1,\n]");
        assert_eq!(file.origin(4..10).excerpt().unwrap(), "  |\n1 | a = [\n  |     ^");
    }

    #[test]
    fn long_lines_are_not_repeated() {
        let file = Source::new("f", "x".repeat(LONGEST_EXCERPT + 1));
        assert_eq!(file.origin(0..1).excerpt(), None);
    }
}
