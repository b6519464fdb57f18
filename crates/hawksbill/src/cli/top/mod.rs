//! `hawksbill top`: how much there is to do and how it goes, in a terminal, each second.

mod table;
mod terminal;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use self::table::{Column, Line, Look, Shape};
use self::terminal::{Key, Terminal, keys};
use super::print;
use crate::control::{Client, Figures, Refused};
use crate::log;

/// How long to wait until a gateway that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// How many lines of a log are kept.
const LOG_LINES: usize = 500;

/// How wide a table is that goes to no terminal.
const WIDE: usize = 100;

const KEYS: &str = "q quit   ↑↓ application   ←→ sort by   s turn round   r reload   l log   ? help";

const HELP: [&str; 19] = [
    "hawksbill top: how much there is to do, and how it goes",
    "",
    "  ↑ ↓  k j   choose an application        ← →  choose the column to sort by",
    "  r          reload the application       s    turn the order round",
    "  l          show its log                 q    quit",
    "  ?          this help                    Esc  back to the table",
    "",
    "  REQ/S      answers a second, of the last seconds",
    "  P50 P99    how long half of the answers, and 99 % of them, took at most:",
    "             from the request to the head of the answer",
    "  BUSY       requests that have come and are not answered yet",
    "  WAIT       requests that wait for a worker or one of its threads",
    "  4XX/S      answers a second that blame the client",
    "  5XX/S      answers a second that blame the application or the gateway",
    "  MEM        resident memory of all processes",
    "  RST        processes that ended unasked",
    "  GEN        the generation that serves: a reload makes another",
    "",
    "  What is marked: a queue, a restart, a slow or a failed answer.",
];

/// Shows the figures: once, or until a key ends it.
///
/// # Errors
/// When nobody answers, or there is no terminal to show them in.
pub(super) async fn run(socket: &Path, once: bool) -> Result<(), Refused> {
    if once { print_once(socket).await } else { Top::new(socket)?.run().await }
}

/// What is printed has rates, so that it is the second that comes.
async fn print_once(socket: &Path) -> Result<(), Refused> {
    let (sender, mut figures) = mpsc::channel(4);
    let _watching = watch(socket, sender);
    loop {
        match figures.recv().await {
            Some(Ok(figures)) if figures.window.is_some() => {
                let lines = table::lines(&figures, &Shape::default(), WIDE, usize::MAX);
                let text: String = lines.iter().map(|line| line.text() + "\n").collect();
                return print(&text).map_err(Refused::Broken);
            }
            Some(Ok(_)) => {}
            Some(Err(refused)) => return Err(refused),
            None => return Err(Refused::Broken("the gateway has ended".to_owned())),
        }
    }
}

type Told = Result<Box<Figures>, Refused>;

/// Hands on what the gateway tells, again and again. Ends with what is given back.
fn watch(socket: &Path, sender: mpsc::Sender<Told>) -> AbortOnDropHandle<()> {
    let client = Client::new(socket);
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let told = sender.clone();
            let watched = client.lines("/metrics", move |line| {
                let figures = line.strip_prefix("data: ").and_then(|text| serde_json::from_str(text).ok());
                if let Some(figures) = figures {
                    // One who draws slowly sees the next.
                    let _ = told.try_send(Ok(Box::new(figures)));
                }
                Ok(())
            });
            let ended = || Refused::Broken("the gateway has ended".to_owned());
            let refused = watched.await.err().unwrap_or_else(ended);
            if sender.send(Err(refused)).await.is_err() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }))
}

enum View {
    Table,
    Help,
    Log { app: String, lines: VecDeque<String>, _following: AbortOnDropHandle<()> },
}

struct Top {
    terminal: Terminal,
    socket: PathBuf,
    view: View,
    shape: Shape,
    figures: Option<Box<Figures>>,
    /// What is said at the bottom instead of the keys, until the next key.
    said: Option<(Look, String)>,
    news: mpsc::Sender<News>,
    heard: Option<mpsc::Receiver<News>>,
}

/// What was asked for and has come.
enum News {
    LogLine(String, String),
    Done(Result<String, String>),
}

impl Top {
    fn new(socket: &Path) -> Result<Self, Refused> {
        let terminal = Terminal::take().map_err(|error| {
            Refused::Broken(format!(
                "there is no terminal to show it in ({error}); try 'hawksbill top --once'"
            ))
        })?;
        let (news, heard) = mpsc::channel(64);
        let (socket, shape) = (socket.to_owned(), Shape::default());
        Ok(Self {
            terminal,
            socket,
            view: View::Table,
            shape,
            figures: None,
            said: None,
            news,
            heard: Some(heard),
        })
    }

    async fn run(mut self) -> Result<(), Refused> {
        let broken = |error: io::Error| Refused::Broken(format!("the terminal fails: {error}"));
        let (sender, mut figures) = mpsc::channel(4);
        let _watching = watch(&self.socket, sender);
        let mut keys = keys().map_err(broken)?;
        let mut resized = signal(SignalKind::window_change()).map_err(broken)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(broken)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(broken)?;
        let mut hung_up = signal(SignalKind::hangup()).map_err(broken)?;
        let (_sender, nothing) = mpsc::channel(1);
        let mut news = self.heard.take().unwrap_or(nothing);
        loop {
            self.draw().map_err(broken)?;
            tokio::select! {
                Some(told) = figures.recv() => match told {
                    Ok(figures) => self.take(figures),
                    // Before it has ever answered there is nothing to show.
                    Err(refused) if self.figures.is_none() => return Err(refused),
                    Err(_) => {
                        let waits = "the gateway does not answer; it is asked again".to_owned();
                        self.said = Some((Look::Bad, waits));
                    }
                },
                Some(news) = news.recv() => self.hear(news),
                Some(key) = keys.recv() => if !self.press(key) { return Ok(()) },
                _ = resized.recv() => {}
                _ = terminated.recv() => return Ok(()),
                _ = interrupted.recv() => return Ok(()),
                _ = hung_up.recv() => return Ok(()),
            }
        }
    }

    fn take(&mut self, figures: Box<Figures>) {
        if self.figures.is_some()
            && matches!(self.said, Some((Look::Bad, ref said)) if said.starts_with("the gateway"))
        {
            self.said = None;
        }
        let names: Vec<_> = table::applications(&figures, &self.shape)
            .into_iter()
            .map(|row| row.application.clone())
            .collect();
        if !names.contains(&self.shape.selected) {
            self.shape.selected = names.into_iter().next().flatten();
        }
        self.figures = Some(figures);
    }

    fn hear(&mut self, news: News) {
        match news {
            News::LogLine(from, line) => {
                if let View::Log { app, lines, .. } = &mut self.view
                    && *app == from
                {
                    if lines.len() == LOG_LINES {
                        lines.pop_front();
                    }
                    lines.push_back(line);
                }
            }
            News::Done(Ok(said)) => self.said = Some((Look::Strong, said)),
            News::Done(Err(said)) => self.said = Some((Look::Bad, said)),
        }
    }

    /// Does what a key means; `false`: it is the end.
    fn press(&mut self, key: Key) -> bool {
        self.said = None;
        match (key, &self.view) {
            (Key::Interrupt, _) | (Key::Letter('q'), View::Table) => return false,
            (Key::Escape | Key::Letter('q'), _) | (Key::Letter('?'), View::Help) => self.view = View::Table,
            (Key::Letter('?'), _) => self.view = View::Help,
            (_, View::Help | View::Log { .. }) => {}
            (Key::Up | Key::Letter('k'), _) => self.select(false),
            (Key::Down | Key::Letter('j'), _) => self.select(true),
            (Key::Left | Key::Letter('<'), _) => self.sort(self.shape.sort.beside(false)),
            (Key::Right | Key::Letter('>'), _) => self.sort(self.shape.sort.beside(true)),
            (Key::Letter('s'), _) => self.shape.reversed = !self.shape.reversed,
            (Key::Letter('r'), _) => self.reload(),
            (Key::Letter('l'), _) => self.open_log(),
            (Key::Letter(_), _) => {}
        }
        true
    }

    fn sort(&mut self, column: Column) {
        self.shape.sort = column;
        self.shape.reversed = false;
    }

    fn select(&mut self, next: bool) {
        let Some(figures) = &self.figures else { return };
        let rows = table::applications(figures, &self.shape);
        let at = rows.iter().position(|row| row.application == self.shape.selected).unwrap_or_default();
        let at = if next { at + 1 } else { at.saturating_sub(1) };
        if let Some(row) = rows.get(at.min(rows.len().saturating_sub(1))) {
            self.shape.selected.clone_from(&row.application);
        }
    }

    /// The application that is selected, if it has processes.
    fn selected(&mut self) -> Option<String> {
        let figures = self.figures.as_ref()?;
        let name = self.shape.selected.clone()?;
        let row = figures.applications.iter().find(|row| row.application.as_deref() == Some(&*name))?;
        if row.crew.is_some() {
            return Some(name);
        }
        self.said = Some((Look::Warning, format!("{name} has no processes of its own")));
        None
    }

    fn reload(&mut self) {
        let Some(app) = self.selected() else { return };
        self.said = Some((Look::Warning, format!("{app} is loaded again ...")));
        let (client, news) = (Client::new(&self.socket), self.news.clone());
        tokio::spawn(async move {
            let done = match client.post::<Value>("/reload", &json!({ "apps": [&app] })).await {
                Ok(applied) => {
                    let generation = applied.get("generation").and_then(Value::as_u64).unwrap_or_default();
                    Ok(format!("generation {generation} of {app} serves"))
                }
                Err(Refused::Refusal(error, _) | Refused::Broken(error)) => Err(error),
                Err(Refused::Nobody(error)) => Err(format!("the gateway does not answer: {error}")),
            };
            let _ = news.send(News::Done(done)).await;
        });
    }

    fn open_log(&mut self) {
        let Some(app) = self.selected() else { return };
        let (client, news, name) = (Client::new(&self.socket), self.news.clone(), app.clone());
        let following = tokio::spawn(async move {
            let encoded = utf8_percent_encode(&name, NON_ALPHANUMERIC);
            let path = format!("/logs?name={encoded}&last=200&follow=true");
            let writer = log::Writer { colours: false };
            let ended = client.lines(&path, |line| {
                let line = match serde_json::from_str::<log::Record>(line) {
                    Ok(record) => writer.text(&record),
                    Err(_) => line.to_owned(),
                };
                for line in line.lines() {
                    // What comes faster than it can be shown is not shown.
                    let _ = news.try_send(News::LogLine(name.clone(), line.to_owned()));
                }
                Ok(())
            });
            let _ = ended.await;
            let _ = news.send(News::LogLine(name, "(the log has ended)".to_owned())).await;
        });
        let following = AbortOnDropHandle::new(following);
        self.view = View::Log { app, lines: VecDeque::new(), _following: following };
    }

    fn draw(&self) -> io::Result<()> {
        let (width, height) = Terminal::size();
        let room = height.saturating_sub(1);
        let (lines, keys) = match (&self.view, &self.figures) {
            (View::Help, _) => (HELP.map(|line| Line::of(Look::Plain, line)).to_vec(), "q back"),
            (View::Log { app, lines, .. }, _) => {
                let head = Line::of(Look::Head, table::fitted(&format!("The log of {app}"), width));
                let last = lines.iter().skip(lines.len().saturating_sub(room.saturating_sub(1)));
                let last = last.map(|line| Line::of(Look::Plain, table::fitted(line, width)));
                (std::iter::once(head).chain(last).collect(), "q back")
            }
            (View::Table, None) => (vec![Line::of(Look::Faint, "the gateway is asked ...")], KEYS),
            (View::Table, Some(figures)) => (table::lines(figures, &self.shape, width, room), KEYS),
        };
        let foot = self.said.clone().unwrap_or((Look::Faint, keys.to_owned()));
        self.terminal.draw(&lines, &Line::of(foot.0, foot.1))
    }
}
