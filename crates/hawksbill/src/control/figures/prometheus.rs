//! The figures in the text format of Prometheus, version 0.0.4.

use std::fmt::Write;
use std::time::Duration;

use hawksbill_core::Reading;

use super::ledger::Readings;
use super::{Crew, Figures};

/// The bounds of the buckets: milliseconds.
const BOUNDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

const COUNTERS: [(&str, &str, Count<Reading>); 4] = [
    ("requests_total", "Requests that came.", |reading| reading.begun),
    ("aborted_total", "Requests whose client went away before the answer.", |reading| reading.aborted),
    ("client_errors_total", "Answers with a status from 400 to 499.", |reading| reading.client_errors),
    ("server_errors_total", "Answers with a status from 500 on.", |reading| reading.server_errors),
];

const GAUGES: [(&str, &str, Count<Crew>); 6] = [
    ("pool_workers", "Processes that serve.", |crew| crew.serving.into()),
    ("pool_memory_bytes", "Resident memory of all processes.", |crew| crew.memory),
    ("pool_restarts", "Processes that ended unasked.", |crew| crew.restarts),
    ("pool_generation", "The generation that serves.", |crew| crew.generation),
    ("pool_busy", "Requests that are worked on.", |crew| crew.busy.into()),
    ("pool_queue", "Requests that wait for a worker.", |crew| crew.queue),
];

type Count<T> = fn(&T) -> u64;

// Writing to a string does not fail.
pub(super) fn exposition(figures: &Figures, readings: &Readings) -> String {
    let mut text = String::new();
    let labelled = || readings.values().map(|reading| (labels(reading), reading));
    for (name, help, count) in COUNTERS {
        head(&mut text, name, help, "counter");
        for (labels, reading) in labelled() {
            let _ = writeln!(text, "hawksbill_{name}{{{labels}}} {}", count(reading));
        }
    }
    head(&mut text, "in_flight", "Requests that are still to be answered.", "gauge");
    for (labels, reading) in labelled() {
        let _ = writeln!(text, "hawksbill_in_flight{{{labels}}} {}", reading.in_flight());
    }
    let name = "request_seconds";
    head(&mut text, name, "Time until the head of the answer.", "histogram");
    for (labels, reading) in labelled() {
        let latency = &reading.latency;
        for bound in BOUNDS.map(Duration::from_millis) {
            let (bound, count) = (bound.as_secs_f64(), latency.within(bound));
            let _ = writeln!(text, "hawksbill_{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let (sum, total) = (latency.sum(), latency.total());
        let _ = writeln!(text, "hawksbill_{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
        let _ = writeln!(text, "hawksbill_{name}_sum{{{labels}}} {sum:.6}");
        let _ = writeln!(text, "hawksbill_{name}_count{{{labels}}} {total}");
    }
    for (name, help, count) in GAUGES {
        head(&mut text, name, help, "gauge");
        let own = figures
            .applications
            .iter()
            .filter_map(|row| Some((row.application.as_ref()?, row.crew.as_ref()?)));
        for (pool, crew) in own.chain(&figures.others) {
            let _ = writeln!(text, "hawksbill_{name}{{pool=\"{}\"}} {}", quoted(pool), count(crew));
        }
    }
    text
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = write!(text, "# HELP hawksbill_{name} {help}\n# TYPE hawksbill_{name} {kind}\n");
}

fn labels(reading: &Reading) -> String {
    format!("site=\"{}\",application=\"{}\"", quoted(&reading.site), quoted(&reading.application))
}

fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_names_are_quoted() {
        let mut reading =
            Reading { site: "a\"b".into(), application: "shop".into(), begun: 4, ..Reading::default() };
        reading.latency.count(Duration::from_millis(20), 3);
        let readings = [((String::new(), String::new()), reading)].into();
        let figures = Figures {
            others: [("front".to_owned(), Crew { memory: 7, ..Crew::default() })].into(),
            ..Figures::default()
        };
        let text = exposition(&figures, &readings);
        for line in [
            "# TYPE hawksbill_request_seconds histogram",
            "hawksbill_requests_total{site=\"a\\\"b\",application=\"shop\"} 4",
            "hawksbill_in_flight{site=\"a\\\"b\",application=\"shop\"} 1",
            "hawksbill_request_seconds_bucket{site=\"a\\\"b\",application=\"shop\",le=\"0.01\"} 0",
            "hawksbill_request_seconds_bucket{site=\"a\\\"b\",application=\"shop\",le=\"0.025\"} 3",
            "hawksbill_request_seconds_bucket{site=\"a\\\"b\",application=\"shop\",le=\"+Inf\"} 3",
            "hawksbill_pool_memory_bytes{pool=\"front\"} 7",
        ] {
            assert!(text.lines().any(|has| has == line), "{line}\n{text}");
        }
    }
}
