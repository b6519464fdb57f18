//! A terminal that is drawn on, and left as it was found.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::table::{Line, Look, fitted};

/// The other screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// What a terminal is taken for that does not say.
const USUAL: (usize, usize) = (80, 24);

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Up,
    Down,
    Left,
    Right,
    Escape,
    /// Ctrl-C.
    Interrupt,
}

/// The terminal of this process, in raw mode. It is put back when this is dropped.
pub(super) struct Terminal {
    before: Termios,
    colours: bool,
}

impl Terminal {
    /// Takes it.
    ///
    /// # Errors
    /// When the standard input or output is none.
    pub(super) fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let terminal = Self { before, colours: std::env::var_os("NO_COLOR").is_none() };
        write(ENTER)?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub(super) fn size() -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => USUAL,
        }
    }

    /// Shows these lines from the top, and nothing else but the last one at the bottom.
    pub(super) fn draw(&self, lines: &[Line], foot: &Line) -> io::Result<()> {
        let (width, height) = Self::size();
        let mut text = String::from("\x1b[H");
        for line in lines.iter().take(height.saturating_sub(1)) {
            self.styled(&mut text, line, width);
            text.push_str("\x1b[K\r\n");
        }
        // Writing to a string does not fail.
        let _ = write!(text, "\x1b[J\x1b[{height};1H");
        self.styled(&mut text, foot, width);
        text.push_str("\x1b[K");
        write(&text)
    }

    fn styled(&self, text: &mut String, line: &Line, width: usize) {
        let mut left = width;
        for (look, part) in &line.parts {
            let part = fitted(part, part.chars().count().min(left));
            left -= part.chars().count();
            let reverse = if line.selected { "\x1b[7m" } else { "" };
            let _ = write!(text, "\x1b[0m{reverse}{}{part}", self.code(*look));
        }
        text.push_str("\x1b[0m");
    }

    fn code(&self, look: Look) -> &'static str {
        match look {
            Look::Faint => "\x1b[2m",
            Look::Head => "\x1b[4m",
            Look::Sorted => "\x1b[1;4m",
            Look::Warning if self.colours => "\x1b[33m",
            Look::Bad if self.colours => "\x1b[1;31m",
            Look::Strong | Look::Warning | Look::Bad => "\x1b[1m",
            Look::Plain => "",
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// The keys that are pressed from now on. A thread of their own reads them, until the process ends.
pub(super) fn keys() -> io::Result<mpsc::Receiver<Key>> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::Builder::new().name("hawksbill-keys".into()).spawn(move || {
        let mut buffer = [0_u8; 64];
        let mut stdin = io::stdin().lock();
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            for key in keys_of(buffer.get(..count).unwrap_or_default()) {
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        }
        // Nobody presses any more: the terminal is gone.
        let _ = sender.blocking_send(Key::Interrupt);
    })?;
    Ok(receiver)
}

/// What a terminal sends at once is what was pressed: an escape that more follows begins a sequence.
fn keys_of(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let [first, rest @ ..] = bytes {
        let (key, rest) = match (first, rest) {
            (0x1b, [b'[' | b'O', last, rest @ ..]) => {
                let key = match last {
                    b'A' => Some(Key::Up),
                    b'B' => Some(Key::Down),
                    b'C' => Some(Key::Right),
                    b'D' => Some(Key::Left),
                    _ => None,
                };
                // Another sequence goes on to its letter or its tilde.
                let skip = |byte: &u8| !last.is_ascii_alphabetic() && !matches!(byte, 0x40..=0x7e);
                let end = rest.iter().position(|byte| !skip(byte)).unwrap_or(rest.len());
                let end = if last.is_ascii_alphabetic() { 0 } else { (end + 1).min(rest.len()) };
                (key, rest.get(end..).unwrap_or_default())
            }
            (0x1b, rest) => (Some(Key::Escape), rest),
            (0x03, rest) => (Some(Key::Interrupt), rest),
            (byte, rest) if byte.is_ascii_graphic() => (Some(Key::Letter(char::from(*byte))), rest),
            (_, rest) => (None, rest),
        };
        keys.extend(key);
        bytes = rest;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_keys() {
        assert_eq!(
            keys_of(b"q\x1b[A\x1b[B\x1bOC\x1b[Dr\x03\x1b"),
            [
                Key::Letter('q'),
                Key::Up,
                Key::Down,
                Key::Right,
                Key::Left,
                Key::Letter('r'),
                Key::Interrupt,
                Key::Escape
            ]
        );
        // Page down, a function key, a letter beyond ASCII.
        assert_eq!(keys_of("\x1b[6~s\x1b[15~S\u{e4}".as_bytes()), [Key::Letter('s'), Key::Letter('S')]);
    }
}
