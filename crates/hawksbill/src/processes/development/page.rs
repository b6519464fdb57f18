//! What an application that does not start answers while it is edited: what is wrong, and where. A browser that shows it
//! comes back by itself once something newer serves.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use hawksbill_core::{Body, BuildError, Turtle, Vitals};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::watch;

use super::super::entrance::Entrance;
use super::{Development, Told, companion};
use crate::{Config, Gateway};

/// Asks to be answered when there is something newer than the page of this number.
pub(super) const WAIT: HeaderName = HeaderName::from_static("x-hawksbill-wait");

/// The number of the page: another one is about another failure.
pub(super) const BROKEN: HeaderName = HeaderName::from_static("x-hawksbill-broken");

/// How long a browser waits at a time: proxies give up what is silent for long.
pub(super) const AT_A_TIME: Duration = Duration::from_secs(25);

/// What the system says of an address that somebody has (`strerror(3)`).
const IN_USE: &str = "Address already in use";

/// So many lines of a source are shown on either side of the one to blame.
const AROUND: usize = 6;

/// A source of more bytes than this is not shown.
const MOST: u64 = 1 << 20;

/// A worker of an application that is edited.
pub(in crate::processes) struct Bench {
    app: String,
    root: PathBuf,
    leaves: watch::Sender<bool>,
    in_use: AtomicBool,
}

impl Bench {
    pub(in crate::processes) fn new(app: &str, development: &Development) -> Self {
        let (leaves, in_use) = (watch::Sender::new(false), AtomicBool::new(false));
        Self { app: app.to_owned(), root: development.root.clone(), leaves, in_use }
    }

    /// Tells what is wrong, and has it answered to whoever asks the application; gives what there is to serve instead of it.
    pub(in crate::processes) fn complain(
        &self,
        error: &BuildError,
        entrance: &mut Entrance,
    ) -> Result<Gateway, BuildError> {
        let text = error.to_string();
        let app = &self.app;
        self.in_use.store(text.contains(IN_USE), Ordering::Relaxed);
        tracing::error!(target: "hawksbill::server", "{app} does not start; what was wrong is answered until it is mended: {text}");
        self.answer(text, entrance)
    }

    /// What the supervisor is told when this worker is ready.
    pub(in crate::processes) fn told(&self, vitals: &Vitals) -> Told {
        let imported = vitals.ask("imported").unwrap_or_default();
        let in_use = self.in_use.load(Ordering::Relaxed);
        Told { imported: imported.lines().map(PathBuf::from).collect(), in_use }
    }

    /// Has it answered that something is wrong.
    pub(in crate::processes) fn answer(
        &self,
        text: String,
        entrance: &mut Entrance,
    ) -> Result<Gateway, BuildError> {
        let page = Arc::new(Page { number: number(), failure: Failure::of(&self.app, text, &self.root) });
        let leaves = self.leaves.subscribe();
        let turtle = Turtle::from_fn(move |request: Request<Body>| {
            let (page, leaves) = (page.clone(), leaves.clone());
            let (head, _) = request.into_parts();
            async move { Ok(page.answer(&head, leaves).await) }
        });
        entrance.answer_with(turtle);
        Gateway::inner(Config::empty(&self.root))
    }

    /// Has the pages come back by themselves that the application itself answers where it fails.
    pub(in crate::processes) fn accompany(&self, entrance: &mut Entrance) {
        entrance.surround(|app| companion::over(app, self.leaves.subscribe()));
    }

    /// Others serve now: whoever waits for that hears it.
    pub(in crate::processes) fn leave(&self) {
        self.leaves.send_replace(true);
    }
}

struct Page {
    number: String,
    failure: Failure,
}

impl Page {
    async fn answer(&self, request: &Parts, mut leaves: watch::Receiver<bool>) -> Response<Body> {
        let header = |name: &HeaderName| request.headers.get(name).and_then(|value| value.to_str().ok());
        let (mut status, mut kind, mut body) =
            (StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", self.failure.text());
        if header(&WAIT) == Some(&self.number) {
            let _ = tokio::time::timeout(AT_A_TIME, leaves.wait_for(|leaves| *leaves)).await;
            (status, body) = (StatusCode::OK, String::new());
        } else if header(&ACCEPT).is_some_and(|accept| accept.contains("text/html")) {
            let can_repeat = matches!(request.method, Method::GET | Method::HEAD);
            (kind, body) = ("text/html; charset=utf-8", self.failure.html(&self.number, can_repeat));
        }
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(number) = HeaderValue::from_str(&self.number) {
            headers.insert(BROKEN, number);
        }
        response
    }
}

/// Why an application does not start, as people want to see it.
struct Failure {
    app: String,
    /// The exception.
    summary: String,
    /// The place in the project that is to blame.
    place: Option<Place>,
    /// All that was said.
    text: String,
}

struct Place {
    path: String,
    line: usize,
    /// The lines around it, with their numbers.
    lines: Vec<(usize, String)>,
}

impl Failure {
    fn of(app: &str, text: String, root: &Path) -> Self {
        let frames: Vec<(&str, usize)> = text.lines().filter_map(frame).collect();
        let is_own = |(path, _): &&(&str, usize)| {
            Path::new(path).starts_with(root) && !path.contains("/site-packages/")
        };
        let blamed = frames.iter().rfind(is_own).or(frames.last());
        let place = blamed.map(|(path, line)| Place::at(Path::new(path), *line, root));
        let summary = summary(&text).to_owned();
        Self { app: app.to_owned(), summary, place, text }
    }

    fn text(&self) -> String {
        let Self { app, summary, place, text } = self;
        let place =
            place.as_ref().map(|place| format!("{}:{}\n", place.path, place.line)).unwrap_or_default();
        format!("{app} does not start.\n{summary}\n{place}\n{text}\n")
    }

    fn html(&self, number: &str, can_repeat: bool) -> String {
        let mut source = String::new();
        let mut at = String::new();
        if let Some(place) = &self.place {
            at = format!("<p class=\"place\">{}:{}</p>", Escaped(&place.path), place.line);
            for (number, line) in &place.lines {
                let class = if *number == place.line { " class=\"to-blame\"" } else { "" };
                // Writing to a string does not fail.
                let _ = writeln!(source, "<span{class}><i>{number:>5}</i> {}</span>", Escaped(line));
            }
            source = format!("<pre class=\"source\">{source}</pre>");
        }
        TEMPLATE
            .replace("{comeback}", &comeback(number, can_repeat))
            .replace("{app}", &Escaped(&self.app).to_string())
            // What people wrote comes last: it may look like a place to fill.
            .replace(
                "{rest}",
                &format!(
                    "<h1>{}</h1>{at}{source}<h2>Traceback</h2><pre class=\"traceback\">{}</pre>",
                    Escaped(&self.summary),
                    Escaped(&self.text)
                ),
            )
    }
}

impl Place {
    fn at(path: &Path, line: usize, root: &Path) -> Self {
        let is_small = path.metadata().is_ok_and(|about| about.is_file() && about.len() <= MOST);
        let source = is_small.then(|| std::fs::read(path).ok()).flatten().unwrap_or_default();
        let lines = String::from_utf8_lossy(&source)
            .lines()
            .enumerate()
            .map(|(index, text)| (index + 1, text.to_owned()))
            .filter(|(number, _)| number.abs_diff(line) <= AROUND)
            .collect();
        Self { path: path.strip_prefix(root).unwrap_or(path).display().to_string(), line, lines }
    }
}

/// The place that a line of a traceback names.
fn frame(line: &str) -> Option<(&str, usize)> {
    let (path, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
    let digits = rest.split_once(|letter: char| !letter.is_ascii_digit()).map_or(rest, |(digits, _)| digits);
    Some((path, digits.parse().ok()?))
}

/// The exception itself: what stands at the left margin behind the last frame; without any, the first line.
fn summary(text: &str) -> &str {
    let behind = text.rfind("  File \"").and_then(|at| text.get(at..)).unwrap_or_default();
    let exception =
        behind.lines().skip(1).find(|line| !line.is_empty() && !line.starts_with(char::is_whitespace));
    exception.or(text.lines().next()).unwrap_or_default()
}

/// A text in a page of HTML.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

const TEMPLATE: &str = include_str!("page.html");

/// What brings a page back once something newer serves: `repeat` by asking the same again, else by going to its address.
pub(super) fn comeback(number: &str, repeat: bool) -> String {
    include_str!("comeback.js")
        .replace("{number}", number)
        .replace("{repeat}", if repeat { "true" } else { "false" })
}

/// A number that no other page has.
pub(super) fn number() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}", std::process::id(), since.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(dir: &Path, source: &str, line: usize) -> Failure {
        let path = dir.join("views.py");
        std::fs::write(&path, source).unwrap();
        let text = format!(
            "apps.shop: importing 'main' failed\nTraceback (most recent call last):\n  File \"{}\", line {line}, in <module>\n    \
             x()\n  File \"/usr/lib/python3/site-packages/x.py\", line 7, in x\n    raise ValueError('<b>')\nValueError: <b>\nmore",
            path.display()
        );
        Failure::of("shop", text, dir)
    }

    #[test]
    fn the_last_frame_of_the_project_is_to_blame() {
        let dir = tempfile::tempdir().unwrap();
        let source = "a line\n".repeat(40);
        let failure = failure(dir.path(), &source, 20);
        assert_eq!(failure.summary, "ValueError: <b>");
        let place = failure.place.as_ref().unwrap();
        assert_eq!((place.path.as_str(), place.line), ("views.py", 20));
        let numbers: Vec<usize> = place.lines.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (14..=26).collect::<Vec<_>>());
        assert!(failure.text().contains("views.py:20\n"));
    }

    #[test]
    fn what_is_wrong_with_the_syntax_has_a_place_too() {
        let text = "it failed\n  File \"/srv/shop/app.py\", line 3\n    def (:\n        ^\nSyntaxError: invalid syntax";
        let failure = Failure::of("shop", text.into(), Path::new("/srv/shop"));
        assert_eq!(failure.summary, "SyntaxError: invalid syntax");
        assert_eq!(failure.place.map(|place| (place.path, place.line)), Some(("app.py".into(), 3)));
    }

    #[test]
    fn nothing_that_a_person_wrote_becomes_a_part_of_the_page() {
        let dir = tempfile::tempdir().unwrap();
        let page = failure(dir.path(), "<script>alert('{rest}')</script>\n", 1).html("1-2", true);
        assert!(
            !page.contains("<script>alert") && page.contains("&lt;script&gt;alert(&#39;{rest}&#39;)"),
            "{page}"
        );
        assert!(page.contains("<h1>ValueError: &lt;b&gt;</h1>"), "{page}");
        assert!(!page.contains("http://") && !page.contains("https://"), "it needs nothing from elsewhere");
        assert_eq!(page.matches("to-blame\"").count(), 1);
    }

    #[test]
    fn what_is_no_traceback_is_shown_as_it_is() {
        let failure =
            Failure::of("shop", "shop: process 7 ended while it started: exit code 3".into(), Path::new("/"));
        assert!(failure.place.is_none());
        assert!(failure.html("1", false).contains("exit code 3"));
    }
}
