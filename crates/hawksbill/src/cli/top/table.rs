//! The table, as lines of text: for a terminal of any size, or for none.

use std::cmp::Ordering;
use std::fmt::Write;

use crate::control::{Crew, Figures, Row, age};

/// What can be sorted by, in the order of the columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    #[default]
    Rate,
    P50,
    P99,
    InFlight,
    Queue,
    ClientErrors,
    ServerErrors,
    Memory,
    Restarts,
    Generation,
}

/// The columns after the name, with their heads and widths, a space before each among them.
const COLUMNS: [(Column, &str, usize); 10] = [
    (Column::Rate, "REQ/S", 7),
    (Column::P50, "P50", 7),
    (Column::P99, "P99", 7),
    (Column::InFlight, "BUSY", 5),
    (Column::Queue, "WAIT", 5),
    (Column::ClientErrors, "4XX/S", 6),
    (Column::ServerErrors, "5XX/S", 6),
    (Column::Memory, "MEM", 6),
    (Column::Restarts, "RST", 4),
    (Column::Generation, "GEN", 4),
];

/// The least that is left for a name.
const NAME: usize = 12;

/// How a part of a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Faint,
    Strong,
    Head,
    Sorted,
    Warning,
    Bad,
}

/// A line: its parts, and whether it is the one that is selected.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub(super) parts: Vec<(Look, String)>,
    pub(super) selected: bool,
}

/// What to show, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub(super) sort: Column,
    pub(super) reversed: bool,
    /// The application that keys are meant for.
    pub(super) selected: Option<String>,
}

impl Column {
    /// The one beside it, to the right or to the left.
    pub(super) fn beside(self, right: bool) -> Self {
        let all = [Self::Name].into_iter().chain(COLUMNS.iter().map(|(column, ..)| *column));
        let all: Vec<Self> = all.collect();
        let at = all.iter().position(|column| *column == self).unwrap_or_default();
        let step = if right { 1 } else { all.len() - 1 };
        all.get((at + step) % all.len()).copied().unwrap_or_default()
    }
}

impl Line {
    pub(super) fn of(look: Look, text: impl Into<String>) -> Self {
        Self { parts: vec![(look, text.into())], selected: false }
    }

    /// The text alone.
    pub(super) fn text(&self) -> String {
        let text: String = self.parts.iter().map(|(_, text)| text.as_str()).collect();
        text.trim_end().to_owned()
    }

    fn and(mut self, look: Look, text: impl Into<String>) -> Self {
        self.parts.push((look, text.into()));
        self
    }
}

/// The applications, in the order in which they are shown.
pub(super) fn applications<'a>(figures: &'a Figures, shape: &Shape) -> Vec<&'a Row> {
    sorted(figures.applications.iter().filter(|row| is_worth_a_line(row)), shape)
}

/// All of it, in so many columns, and no more lines than there is room for.
pub(super) fn lines(figures: &Figures, shape: &Shape, width: usize, height: usize) -> Vec<Line> {
    let mut lines = head(figures, width);
    let applications = applications(figures, shape);
    let sites = sorted(figures.sites.iter().filter(|row| is_worth_a_line(row)), shape);
    let others = figures.others.len();
    // Each section has a blank line and its head; the applications come first where there is not room for all.
    let room = height.saturating_sub(lines.len());
    let sections = [applications.len(), sites.len(), others];
    let [for_applications, for_sites, for_others] = shares(sections, room);
    let name = |row: &Row| row.application.clone().unwrap_or_default();
    section(&mut lines, "APPLICATION", for_applications, applications.len(), (shape, width), |at| {
        let row = applications.get(at)?;
        let selected = shape.selected.as_deref() == row.application.as_deref();
        Some(Line { selected, ..cells(&called(&name(row), "(no route)"), row, width) })
    });
    section(&mut lines, "SITE", for_sites, sites.len(), (shape, width), |at| {
        let row = sites.get(at)?;
        let site = row.site.clone().unwrap_or_default();
        Some(cells(&called(&site, "(no site)"), row, width))
    });
    let others: Vec<(&String, &Crew)> = figures.others.iter().collect();
    section(&mut lines, "OTHER PROCESSES", for_others, others.len(), (shape, width), |at| {
        let (name, crew) = others.get(at)?;
        Some(cells(name, &Row { crew: Some((*crew).clone()), ..Row::default() }, width))
    });
    lines.truncate(height);
    lines
}

/// How many rows of each section there is room for.
fn shares(wanted: [usize; 3], room: usize) -> [usize; 3] {
    let mut left = room;
    let mut shares = [0; 3];
    // First a few of each, then whoever comes first.
    for most in [4, usize::MAX] {
        for (share, wanted) in shares.iter_mut().zip(wanted) {
            let heads = if *share == 0 { 2 } else { 0 };
            let more = (wanted - *share).min(most).min(left.saturating_sub(heads));
            if more > 0 {
                *share += more;
                left -= more + heads;
            }
        }
    }
    shares
}

fn section(
    lines: &mut Vec<Line>,
    title: &str,
    share: usize,
    count: usize,
    (shape, width): (&Shape, usize),
    row: impl Fn(usize) -> Option<Line>,
) {
    if share == 0 {
        return;
    }
    let hidden = count - share;
    let title = if hidden > 0 { format!("{title} (+{hidden})") } else { title.to_owned() };
    lines.push(Line::default());
    lines.push(heads(&title, shape, width));
    lines.extend((0..share).filter_map(row));
}

fn heads(title: &str, shape: &Shape, width: usize) -> Line {
    let look = |column| if column == shape.sort { Look::Sorted } else { Look::Head };
    let name = name_width(width);
    let mut line = Line::of(look(Column::Name), fitted(title, name));
    for (column, head, width) in COLUMNS {
        line = line.and(look(column), format!("{head:>width$}"));
    }
    line
}

fn name_width(width: usize) -> usize {
    let columns: usize = COLUMNS.iter().map(|(.., width)| width).sum();
    width.saturating_sub(columns).clamp(NAME, 40)
}

fn cells(name: &str, row: &Row, width: usize) -> Line {
    let crew = row.crew.as_ref();
    let mut line = Line::of(Look::Plain, fitted(name, name_width(width)));
    for (column, _, width) in COLUMNS {
        let (text, look) = match column {
            Column::Name => continue,
            Column::Rate => (row.rate.map(rate), Look::Strong),
            Column::P50 => (row.p50.map(time), Look::Plain),
            Column::P99 => {
                let slow = row.p99.is_some_and(|p99| p99 >= 1.0);
                (row.p99.map(time), if slow { Look::Warning } else { Look::Plain })
            }
            Column::InFlight => (row.rate.map(|_| row.in_flight.to_string()), Look::Plain),
            Column::Queue => {
                let queue = crew.map(|crew| crew.queue);
                (queue.map(|queue| queue.to_string()), warns(queue.unwrap_or(0) > 0))
            }
            Column::ClientErrors => (row.client_error_rate.map(rate), Look::Plain),
            Column::ServerErrors => {
                let failing = row.server_error_rate.is_some_and(|rate| rate > 0.0);
                (row.server_error_rate.map(rate), if failing { Look::Bad } else { Look::Plain })
            }
            Column::Memory => (crew.map(|crew| size(crew.memory)), Look::Plain),
            Column::Restarts => {
                let restarts = crew.map(|crew| crew.restarts);
                (restarts.map(|count| count.to_string()), warns(restarts.unwrap_or(0) > 0))
            }
            Column::Generation => (crew.map(|crew| crew.generation.to_string()), Look::Plain),
        };
        let text = text.unwrap_or_else(|| "-".to_owned());
        line = line.and(look, format!(" {text:>width$}", width = width - 1));
    }
    line
}

fn warns(is_so: bool) -> Look {
    if is_so { Look::Warning } else { Look::Plain }
}

fn head(figures: &Figures, width: usize) -> Vec<Line> {
    let Figures { gateway, total, .. } = figures;
    let mut title = format!("hawksbill {}  pid {}  ", gateway.hawksbill, gateway.pid);
    let state = gateway.state.word();
    let about = format!("  up {}  {}", age(gateway.uptime), gateway.serves);
    let room = width.saturating_sub(title.chars().count() + state.chars().count());
    title.truncate(width);
    let state_look = if state == "serving" { Look::Strong } else { Look::Warning };
    let first = Line::of(Look::Plain, title).and(state_look, state).and(Look::Faint, fitted(&about, room));
    let maybe = |figure: Option<String>| figure.unwrap_or_else(|| "-".to_owned());
    let mut sums = format!("{} req/s", maybe(total.rate.map(rate)));
    let (p50, p99) = (maybe(total.p50.map(time)), maybe(total.p99.map(time)));
    let memory = total.crew.as_ref().map(|crew| size(crew.memory));
    // Writing to a string does not fail.
    let _ = write!(sums, "   p50 {p50}   p99 {p99}   {} in flight", total.in_flight);
    let _ = write!(sums, "   {} 5xx/s   {}", maybe(total.server_error_rate.map(rate)), maybe(memory));
    vec![first, Line::of(Look::Plain, fitted(&sums, width))]
}

/// Names that nobody gave are told apart.
fn called(name: &str, nothing: &str) -> String {
    if name.is_empty() { nothing.to_owned() } else { name.to_owned() }
}

/// What was asked for no site or no route is shown when there is some of it.
fn is_worth_a_line(row: &Row) -> bool {
    let is_named = |name: &Option<String>| name.as_deref().is_none_or(|name| !name.is_empty());
    row.requests > 0 || (is_named(&row.site) && is_named(&row.application))
}

fn sorted<'a>(rows: impl Iterator<Item = &'a Row>, shape: &Shape) -> Vec<&'a Row> {
    let mut rows: Vec<&Row> = rows.collect();
    let name = |row: &Row| row.application.clone().or_else(|| row.site.clone());
    let crew = |row: &Row, of: fn(&Crew) -> u64| row.crew.as_ref().map_or(0, of);
    let float = |one: Option<f64>, other: Option<f64>| {
        other.unwrap_or(-1.0).partial_cmp(&one.unwrap_or(-1.0)).unwrap_or(Ordering::Equal)
    };
    rows.sort_by(|one, other| {
        let by = match shape.sort {
            Column::Name => name(one).cmp(&name(other)),
            Column::Rate => float(one.rate, other.rate),
            Column::P50 => float(one.p50, other.p50),
            Column::P99 => float(one.p99, other.p99),
            Column::InFlight => other.in_flight.cmp(&one.in_flight),
            Column::Queue => crew(other, |crew| crew.queue).cmp(&crew(one, |crew| crew.queue)),
            Column::ClientErrors => float(one.client_error_rate, other.client_error_rate),
            Column::ServerErrors => float(one.server_error_rate, other.server_error_rate),
            Column::Memory => crew(other, |crew| crew.memory).cmp(&crew(one, |crew| crew.memory)),
            Column::Restarts => crew(other, |crew| crew.restarts).cmp(&crew(one, |crew| crew.restarts)),
            Column::Generation => crew(other, |crew| crew.generation).cmp(&crew(one, |crew| crew.generation)),
        };
        let by = if shape.reversed { by.reverse() } else { by };
        by.then_with(|| name(one).cmp(&name(other)))
    });
    rows
}

/// A text in so many columns: cut with a sign of it, or filled up. What is no letter to see is none on a terminal.
pub(super) fn fitted(text: &str, width: usize) -> String {
    let shown = |letter: char| if letter.is_control() { '?' } else { letter };
    if text.chars().count() <= width {
        let text: String = text.chars().map(shown).collect();
        return format!("{text:width$}");
    }
    let mut cut: String = text.chars().map(shown).take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

fn rate(rate: f64) -> String {
    match rate {
        _ if rate <= 0.0 => "0".to_owned(),
        _ if rate < 9.95 => format!("{rate:.1}"),
        _ if rate < 9999.5 => format!("{rate:.0}"),
        _ => format!("{:.1}k", rate / 1000.0),
    }
}

fn time(seconds: f64) -> String {
    let millis = seconds * 1000.0;
    match millis {
        _ if millis < 0.9995 => format!("{:.0}µs", millis * 1000.0),
        _ if millis < 9.95 => format!("{millis:.1}ms"),
        _ if millis < 999.5 => format!("{millis:.0}ms"),
        _ if seconds < 9.95 => format!("{seconds:.1}s"),
        _ => format!("{seconds:.0}s"),
    }
}

fn size(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1 << 20);
    match tenths {
        0..1000 => format!("{}.{}M", tenths / 10, tenths % 10),
        1000..10_240 => format!("{}M", tenths / 10),
        _ => format!("{}.{}G", tenths / 10_240, tenths % 10_240 * 10 / 10_240),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(application: &str, rate: f64) -> Row {
        Row {
            application: Some(application.into()),
            requests: 10,
            rate: Some(rate),
            p50: Some(0.0021),
            p99: Some(1.25),
            client_error_rate: Some(0.0),
            server_error_rate: Some(0.4),
            crew: Some(Crew { memory: 47_500_000, restarts: 2, generation: 3, ..Crew::default() }),
            ..Row::default()
        }
    }

    fn figures(applications: usize) -> Figures {
        let row = |at: usize| row(&format!("app{at}"), f64::from(u32::try_from(at).unwrap()));
        let site = Row { site: Some("example.com".into()), application: None, crew: None, ..row(4) };
        Figures {
            applications: (0..applications).map(row).collect(),
            sites: vec![site, Row { site: Some(String::new()), ..Row::default() }],
            others: [("front".to_owned(), Crew { memory: 12 << 30, ..Crew::default() })].into(),
            ..Figures::default()
        }
    }

    fn text(figures: &Figures, shape: &Shape, width: usize, height: usize) -> Vec<String> {
        lines(figures, shape, width, height).iter().map(Line::text).collect()
    }

    #[test]
    fn a_table_fits_into_eighty_columns() {
        let shown = text(&figures(2), &Shape::default(), 80, 24);
        assert_eq!(
            shown[2..],
            [
                "",
                "APPLICATION              REQ/S    P50    P99 BUSY WAIT 4XX/S 5XX/S   MEM RST GEN",
                "app1                       1.0  2.1ms   1.2s    0    0     0   0.4 45.2M   2   3",
                "app0                         0  2.1ms   1.2s    0    0     0   0.4 45.2M   2   3",
                "",
                "SITE                     REQ/S    P50    P99 BUSY WAIT 4XX/S 5XX/S   MEM RST GEN",
                "example.com                4.0  2.1ms   1.2s    0    -     0   0.4     -   -   -",
                "",
                "OTHER PROCESSES          REQ/S    P50    P99 BUSY WAIT 4XX/S 5XX/S   MEM RST GEN",
                "front                        -      -      -    -    0     -     - 12.0G   0   0",
            ]
        );
    }

    #[test]
    fn what_there_is_no_room_for_is_told() {
        let shown = text(&figures(50), &Shape::default(), 80, 20);
        assert_eq!(shown.len(), 20);
        assert!(shown[3].starts_with("APPLICATION (+40)"), "{}", shown[3]);
        assert!(shown[4].starts_with("app49"), "{}", shown[4]);
        assert!(shown.iter().any(|line| line.starts_with("front")), "{shown:#?}");
        for (width, height) in [(1, 1), (0, 0), (300, 3), (20, 100)] {
            assert!(text(&figures(9), &Shape::default(), width, height).len() <= height);
        }
    }

    #[test]
    fn columns_sort() {
        let by = |sort, reversed| {
            let shape = Shape { sort, reversed, selected: None };
            applications(&figures(3), &shape)
                .iter()
                .map(|row| row.application.clone().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(by(Column::Name, false), ["app0", "app1", "app2"]);
        assert_eq!(by(Column::Rate, false), ["app2", "app1", "app0"]);
        assert_eq!(by(Column::Rate, true), ["app0", "app1", "app2"]);
        assert_eq!(Column::Name.beside(false), Column::Generation);
        assert_eq!(Column::Generation.beside(true), Column::Name);
    }

    #[test]
    fn names_do_not_command_the_terminal() {
        assert_eq!(fitted("a\x1b[2Jb", 10), "a?[2Jb    ");
        assert_eq!(fitted("long name", 5), "long…");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([0.0, 0.42, 12.4, 12_345.0].map(rate), ["0", "0.4", "12", "12.3k"]);
        assert_eq!([0.000_25, 0.0042, 0.25, 1.0, 12.0].map(time), ["250µs", "4.2ms", "250ms", "1.0s", "12s"]);
        assert_eq!([0, 47_500_000, 500 << 20, 3 << 30].map(size), ["0.0M", "45.2M", "500M", "3.0G"]);
    }
}
