//! What a client sent, made fit for one line of a log.

use std::fmt;

/// As many characters as a reason quotes; a request line may be a thousand times longer.
const LONGEST: usize = 100;

/// Displays text quoted, escaped and cut.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.0.chars();
        let start = characters.by_ref().take(LONGEST).flat_map(char::escape_debug);
        f.write_str("'")?;
        start.into_iter().try_for_each(|character| fmt::Write::write_char(f, character))?;
        f.write_str(if characters.next().is_some() { "...'" } else { "'" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_stays_one_line() {
        assert_eq!(Shown("/a\r\n\u{1b}[2J'").to_string(), r"'/a\r\n\u{1b}[2J\''");
    }

    #[test]
    fn what_is_long_is_cut() {
        let shown = Shown(&"x".repeat(60_000)).to_string();
        assert_eq!(shown, format!("'{}...'", "x".repeat(LONGEST)));
        assert_eq!(Shown(&"x".repeat(LONGEST)).to_string(), format!("'{}'", "x".repeat(LONGEST)));
    }
}
