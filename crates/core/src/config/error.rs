//! What is wrong with a config: where, what was found, what is allowed, what was probably meant.

use std::fmt;

use serde::de::{self, Unexpected};

use super::{Data, Origin, Path, Segment, Value};

/// One or several problems of a config, each with its place.
///
/// `Display` writes each problem as one line for people; where the place is in a file, the line of the file
/// follows, with carets under what is meant.
///
/// ```
/// use hawksbill_core::config::{ConfigError, Origin, Source};
///
/// let file = Source::new("hawksbill.toml", "tls = \"auto\"\n");
/// let mut error = ConfigError::not_built(file.origin(0..3), "tls", None);
/// error.extend(ConfigError::new(Origin::named("flag --listen"), "port 80 is in use"));
/// assert_eq!(
///     error.to_string(),
///     "hawksbill.toml:1:1: 'tls' is designed but not built yet in this version; remove it\n  \
///        |\n\
///      1 | tls = \"auto\"\n  \
///        | ^^^\n\
///      flag --listen: port 80 is in use"
/// );
/// ```
#[derive(Clone, Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One problem of a config; part of a [`ConfigError`].
#[derive(Clone, Debug)]
pub struct Problem {
    origin: Origin,
    path: Path,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Message(String),
    UnknownKey { key: String, allowed: Vec<String> },
    UnknownVariant { found: String, allowed: Vec<String> },
    MissingKey(String),
    DuplicateKey(String),
    Mismatch { found: Found, expected: String },
    NotBuilt { key: String, note: Option<String> },
}

impl ConfigError {
    fn problem(origin: Origin, what: What) -> Self {
        Self { problems: vec![Problem { origin, path: Path::root(), what }] }
    }

    /// A problem told in free words: what happened and what to do.
    pub fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self::problem(origin, What::Message(message.into()))
    }

    /// A key that nothing here knows; `origin` is the key's. The message lists what is allowed and, where one of
    /// these is near, asks 'did you mean'.
    pub fn unknown_key<A: Into<String>>(
        origin: Origin,
        key: impl Into<String>,
        allowed: impl IntoIterator<Item = A>,
    ) -> Self {
        let allowed = allowed.into_iter().map(Into::into).collect();
        Self::problem(origin, What::UnknownKey { key: key.into(), allowed })
    }

    /// A word that is none of the words allowed here; asks 'did you mean' as [`ConfigError::unknown_key`] does.
    pub fn unknown_word<A: Into<String>>(
        origin: Origin,
        word: impl Into<String>,
        allowed: impl IntoIterator<Item = A>,
    ) -> Self {
        let allowed = allowed.into_iter().map(Into::into).collect();
        Self::problem(origin, What::UnknownVariant { found: word.into(), allowed })
    }

    /// A key that must be there and is not; `origin` is the table's.
    pub fn missing_key(origin: Origin, key: impl Into<String>) -> Self {
        Self::problem(origin, What::MissingKey(key.into()))
    }

    /// A value of the wrong kind: `found ..., expected ...`.
    pub fn mismatch(origin: Origin, found: &Value, expected: impl Into<String>) -> Self {
        Self::problem(origin, What::Mismatch { found: Found::from(found), expected: expected.into() })
    }

    /// A key whose meaning is fixed but which this version cannot do yet: refused, never ignored. `note` is a
    /// sentence on what to do meanwhile.
    pub fn not_built(origin: Origin, key: impl Into<String>, note: Option<&str>) -> Self {
        Self::problem(origin, What::NotBuilt { key: key.into(), note: note.map(ToOwned::to_owned) })
    }

    /// The problems, in the order they were found; never empty.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Adds the problems of `other`.
    pub fn extend(&mut self, other: ConfigError) {
        self.problems.extend(other.problems);
    }

    /// The same problems, of a value that stands under `key`.
    pub fn under(self, key: impl Into<String>) -> Self {
        self.inside(&[Segment::Key(key.into())])
    }

    /// The same problems, of a value that is element `index` of an array.
    pub fn under_index(self, index: usize) -> Self {
        self.inside(&[Segment::Index(index)])
    }

    /// The same problems, of a value that stands at `path`.
    pub fn within(self, path: &Path) -> Self {
        self.inside(path.segments())
    }

    fn inside(mut self, outer: &[Segment]) -> Self {
        for problem in &mut self.problems {
            problem.path.prepend(outer);
        }
        self
    }

    /// Gives `origin` to the problems that have no place yet.
    pub fn located(mut self, origin: &Origin) -> Self {
        for problem in &mut self.problems {
            if !problem.origin.is_known() {
                problem.origin = origin.clone();
            }
        }
        self
    }
}

impl Problem {
    /// The place, if one is known.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where in the config tree: the value, or, for a problem with a key, the table that holds the key.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The message alone, without the place and the line of the file.
    pub fn message(&self) -> String {
        let table = self.path.as_table();
        let value = if self.path.is_root() { String::new() } else { format!("{}: ", self.path) };
        match &self.what {
            What::Message(message) => format!("{value}{message}"),
            What::UnknownKey { key, allowed } => unknown_key(key, &table, allowed),
            What::UnknownVariant { found, allowed } => {
                let hint = did_you_mean(found, allowed).map(|near| format!("; did you mean '{near}'?"));
                let found = Found::Text(found.clone());
                format!("{value}found {found}, expected {}{}", one_of(allowed), hint.unwrap_or_default())
            }
            What::MissingKey(key) => format!("the key '{key}' is missing{table}"),
            What::DuplicateKey(key) => format!("the key '{key}' is given twice{table}"),
            What::Mismatch { found, expected } => format!("{value}found {found}, expected {expected}"),
            What::NotBuilt { key, note } => {
                let note = note.as_ref().map(|note| format!(". {note}")).unwrap_or_default();
                format!("'{key}'{table} is designed but not built yet in this version; remove it{note}")
            }
        }
    }
}

fn unknown_key(key: &str, table: &str, allowed: &[String]) -> String {
    let place = if table.is_empty() { " at the top level" } else { table };
    let key = shortened(key);
    let hint = match did_you_mean(&key, allowed) {
        Some(near) => format!("; did you mean '{near}'?"),
        None => ".".to_owned(),
    };
    let allowed = if allowed.is_empty() { "no keys".to_owned() } else { allowed.join(", ") };
    format!("unknown key '{key}'{place}{hint} Allowed here: {allowed}")
}

fn one_of(words: &[String]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [word] => format!("'{word}'"),
        [first, last] => format!("'{first}' or '{last}'"),
        words => format!("one of {}", words.join(", ")),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin.is_known() {
            write!(f, "{}: ", self.origin)?;
        }
        f.write_str(&self.message())?;
        if let Some(excerpt) = self.origin.excerpt() {
            write!(f, "\n{excerpt}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// How serde's complaints become problems; the deserializer adds place and path while it unwinds.
impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        super::capture::take_relayed()
            .unwrap_or_else(|| Self::new(Origin::unknown(), without_rust_names(message.to_string())))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let what = What::Mismatch { found: Found::from(found), expected: in_words(&expected.to_string()) };
        Self::problem(Origin::unknown(), what)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        let what = What::Mismatch {
            found: Found::Other(format!("an array of {length}")),
            expected: in_words(&expected.to_string()),
        };
        Self::problem(Origin::unknown(), what)
    }

    fn unknown_variant(found: &str, allowed: &'static [&'static str]) -> Self {
        Self::unknown_word(Origin::unknown(), found, allowed.iter().copied())
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Self {
        Self::unknown_key(Origin::unknown(), key, allowed.iter().copied())
    }

    fn missing_field(key: &'static str) -> Self {
        Self::missing_key(Origin::unknown(), key)
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::problem(Origin::unknown(), What::DuplicateKey(key.to_owned()))
    }
}

/// What stands where something else was expected.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Text(String),
    Number(String),
    Boolean(bool),
    Other(String),
}

impl From<&Value> for Found {
    fn from(value: &Value) -> Self {
        match &value.data {
            Data::String(text) => Self::Text(text.clone()),
            Data::Integer(number) => Self::Number(number.to_string()),
            Data::Float(number) => Self::Number(format!("{number:?}")),
            Data::Boolean(truth) => Self::Boolean(*truth),
            Data::Array(_) => Self::Other("an array".to_owned()),
            Data::Table(_) => Self::Other("a table".to_owned()),
        }
    }
}

impl From<Unexpected<'_>> for Found {
    fn from(unexpected: Unexpected<'_>) -> Self {
        match unexpected {
            Unexpected::Str(text) => Self::Text(text.to_owned()),
            Unexpected::Char(character) => Self::Text(character.to_string()),
            Unexpected::Signed(number) => Self::Number(number.to_string()),
            Unexpected::Unsigned(number) => Self::Number(number.to_string()),
            Unexpected::Float(number) => Self::Number(format!("{number:?}")),
            Unexpected::Bool(truth) => Self::Boolean(truth),
            Unexpected::Seq => Self::Other("an array".to_owned()),
            Unexpected::Map | Unexpected::StructVariant => Self::Other("a table".to_owned()),
            Unexpected::Unit => Self::Other("null".to_owned()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{:?} (a string)", shortened(text)),
            Self::Number(number) => write!(f, "{number} (a number)"),
            Self::Boolean(truth) => write!(f, "{truth} (a boolean)"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// serde's complaint about an `untagged` enum names the Rust type, which says nothing to who writes a config.
fn without_rust_names(message: String) -> String {
    if message.starts_with("data did not match any variant of untagged enum") {
        "this fits none of the forms that are allowed here".to_owned()
    } else {
        message
    }
}

/// Long text is cut: a message names it, it need not repeat it.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// serde names what it expects by Rust's types; people who write TOML know others.
fn in_words(expected: &str) -> String {
    let whole = |from: i128, to: u64| format!("a whole number from {from} to {to}");
    match expected {
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" | "u128" | "usize" => "a whole number from 0 up".to_owned(),
        "a nonzero u8" => whole(1, u8::MAX.into()),
        "a nonzero u16" => whole(1, u16::MAX.into()),
        "a nonzero u32" => whole(1, u32::MAX.into()),
        "a nonzero u64" | "a nonzero u128" | "a nonzero usize" => "a whole number from 1 up".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other if other.starts_with("enum ") => "a word, or a table with one key".to_owned(),
        other if other.starts_with("a tuple of size ") => other.replacen("a tuple of size", "an array of", 1),
        other if other.starts_with("tuple ") => "an array".to_owned(),
        other => other.to_owned(),
    }
}

/// The candidate that was probably meant by `word`, if one is near: it differs by case, by `-` and `_`, by about
/// one slip of the keyboard in three letters, or one is the beginning of the other.
///
/// ```
/// use hawksbill_core::config::did_you_mean;
///
/// let keys = ["workers", "threads", "keep_alive"];
/// assert_eq!(did_you_mean("worker", keys), Some("workers"));
/// assert_eq!(did_you_mean("KeepAlive", keys), Some("keep_alive"));
/// assert_eq!(did_you_mean("colour", keys), None);
/// ```
pub fn did_you_mean<'a, S: AsRef<str> + ?Sized + 'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a S>,
) -> Option<&'a str> {
    // Nobody means a key by a text as long as this, and the comparison takes time that grows with its square.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let folded = folded(word);
    candidates
        .into_iter()
        .map(AsRef::as_ref)
        .filter_map(|candidate| Some((distance(&folded, candidate)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How far `candidate` is from `word` (which is folded); nothing if too far to be meant.
fn distance(word: &str, candidate: &str) -> Option<usize> {
    let candidate = folded(candidate);
    let slips = strsim::damerau_levenshtein(word, &candidate);
    let length = word.chars().count().max(candidate.chars().count());
    let near = slips <= (length / 3).max(1) && slips < length;
    // A word and its beginning mean the same: 'environment' and 'env', 'expire' and 'expires_after'.
    let beginning =
        word.len().min(candidate.len()) >= 3 && (candidate.starts_with(word) || word.starts_with(&candidate));
    (near || beginning).then_some(slips)
}

/// The word without what people get wrong most: case, and which character joins its parts.
fn folded(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn did_you_mean_finds_slips_case_and_joints() {
        let keys = ["dir", "env", "workers", "header_timeout", "log", "listen"];
        for (word, meant) in [
            ("worker", Some("workers")),
            ("wokrers", Some("workers")),
            ("header-timeout", Some("header_timeout")),
            ("headerTimeout", Some("header_timeout")),
            ("Dir", Some("dir")),
            ("dri", Some("dir")),
            ("lisen", Some("listen")),
            ("header", Some("header_timeout")),
            ("directory", Some("dir")),
            ("di", Some("dir")),
            ("e", None),
            ("tls", None),
            ("fastcgi", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(word, keys), meant, "{word}");
        }
        assert_eq!(did_you_mean(&"workers".repeat(20), keys), None);
    }

    #[test]
    fn keys_that_are_not_built_are_refused_by_name_and_place() {
        let error = ConfigError::not_built(
            Origin::unknown(),
            "queue",
            Some("Requests wait without a limit until then."),
        )
        .under("shop")
        .under("apps");
        assert_eq!(
            error.to_string(),
            "'queue' in [apps.shop] is designed but not built yet in this version; remove it. \
             Requests wait without a limit until then."
        );
    }

    #[test]
    fn a_word_is_told_from_the_allowed_ones() {
        let error = |allowed: &[&str]| {
            ConfigError::unknown_word(Origin::unknown(), "combind", allowed.iter().copied()).to_string()
        };
        assert_eq!(error(&["json"]), r#"found "combind" (a string), expected 'json'"#);
        assert_eq!(
            error(&["combined", "json"]),
            r#"found "combind" (a string), expected 'combined' or 'json'; did you mean 'combined'?"#
        );
        assert_eq!(error(&["a", "b", "c"]), r#"found "combind" (a string), expected one of a, b, c"#);
    }

    #[test]
    fn long_text_is_cut() {
        let found = Value::from("ü".repeat(100)).to_string();
        assert_eq!(found, format!("\"{}...\" (a string)", "ü".repeat(60)));
    }

    #[test]
    fn a_place_once_known_stays() {
        let error = ConfigError::new(Origin::unknown(), "no").located(&Origin::named("inner"));
        assert_eq!(error.located(&Origin::named("outer")).to_string(), "inner: no");
    }

    proptest! {
        #[test]
        fn any_word_may_be_compared(word in ".*", candidates in proptest::collection::vec(".*", 0..4)) {
            let found = did_you_mean(&word, candidates.iter().map(String::as_str));
            prop_assert!(found.is_none_or(|found| candidates.iter().any(|c| c == found)));
        }
    }
}
