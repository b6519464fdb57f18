//! `.env` files: a line is `KEY=value`, and nothing in it is expanded or run.

use hawksbill_core::config::{ConfigError, Origin};

/// The name of the file.
pub(super) const FILE: &str = ".env";

/// What a `.env` file sets, in its order; of two lines for one variable the last counts.
///
/// Empty lines and comments (`# ...`) are skipped, and `export` may stand before a name. A value in single quotes is
/// taken as it is; in double quotes `\n`, `\t`, `\"`, `\\` and `\$` mean what they mean in a shell; without quotes it
/// ends at ` #` or at the end of the line.
///
/// # Errors
/// The line that is none of that. Its text is not told: it may be a secret.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables: Vec<(String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = variable(line).map_err(|what| {
            let origin = Origin::named(format!("{FILE}, line {}", number + 1));
            ConfigError::new(
                origin,
                format!("{what}; a line is KEY=value, with quotes around it if it has blanks"),
            )
        })?;
        variables.retain(|(other, _)| other != key);
        variables.push((key.to_owned(), value));
    }
    Ok(variables)
}

fn variable(line: &str) -> Result<(&str, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=').ok_or("there is no '=' here")?;
    let key = key.trim();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    if key.is_empty() || key.starts_with(|letter: char| letter.is_ascii_digit()) || !key.chars().all(plain) {
        return Err("what stands before the '=' is no name of a variable");
    }
    let value = value.trim();
    let value = match value.chars().next() {
        Some('\'') => single(value)?,
        Some('"') => double(value)?,
        _ => bare(value).to_owned(),
    };
    if value.contains('\0') { Err("a value cannot hold a null character") } else { Ok((key, value)) }
}

fn bare(value: &str) -> &str {
    let comment = value.char_indices().find(|(at, letter)| {
        let before = value.get(..*at).unwrap_or_default();
        *letter == '#' && (before.is_empty() || before.ends_with(char::is_whitespace))
    });
    value.get(..comment.map_or(value.len(), |(at, _)| at)).unwrap_or_default().trim_end()
}

fn single(value: &str) -> Result<String, &'static str> {
    let (inner, rest) =
        value.get(1..).and_then(|value| value.split_once('\'')).ok_or("the quote is not closed")?;
    nothing_more(rest)?;
    Ok(inner.to_owned())
}

fn double(value: &str) -> Result<String, &'static str> {
    let mut letters = value.get(1..).unwrap_or_default().chars();
    let mut inner = String::new();
    loop {
        match letters.next().ok_or("the quote is not closed")? {
            '"' => break,
            '\\' => match letters.next().ok_or("the quote is not closed")? {
                'n' => inner.push('\n'),
                't' => inner.push('\t'),
                same @ ('"' | '\\' | '$') => inner.push(same),
                other => inner.extend(['\\', other]),
            },
            letter => inner.push(letter),
        }
    }
    nothing_more(letters.as_str())?;
    Ok(inner)
}

fn nothing_more(rest: &str) -> Result<(), &'static str> {
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') { Ok(()) } else { Err("something follows the closing quote") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        let text = "# a comment\n\nA=1\nexport B = two words # said\nC='# $HOME'\nD=\"a\\nb\\\"c\" # said\nE=\n\
                    F=a#b\nA=2\r\nG=\"C:\\dir\"\n";
        let read = parse(text).unwrap();
        let read: Vec<_> = read.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let wanted = [
            ("B", "two words"),
            ("C", "# $HOME"),
            ("D", "a\nb\"c"),
            ("E", ""),
            ("F", "a#b"),
            ("A", "2"),
            ("G", "C:\\dir"),
        ];
        assert_eq!(read, wanted);
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number_and_not_by_its_text() {
        for line in [
            "secret",
            "1A=secret",
            "A B=secret",
            "=secret",
            "A='secret",
            "A=\"secret",
            "A='secret'x",
            "A=secret\0",
        ] {
            let error = parse(&format!("OK=1\n{line}")).unwrap_err().to_string();
            assert!(error.contains(".env, line 2"), "{line}: {error}");
            assert!(!error.contains("secret"), "{line}: {error}");
        }
    }
}
