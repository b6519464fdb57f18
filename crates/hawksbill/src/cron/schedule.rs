//! The times of a crontab expression in a time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The times at which something is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// # Errors
    /// When the expression, or the zone, is none.
    pub(crate) fn new(expression: &str, zone: Option<&str>) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| {
            format!(
                "schedule: '{expression}' is not understood: {error}; write five fields (minute, hour, day, month, weekday), such as \"30 3 * * *\", or @daily"
            )
        })?;
        let zone = match zone {
            None => TimeZone::system(),
            Some(name) => TimeZone::get(name).map_err(|_| {
                format!(
                    "timezone: there is no time zone '{name}'; write one such as \"Europe/Berlin\" or \"UTC\""
                )
            })?,
        };
        let schedule = Self { cron, zone };
        if schedule.next(Timestamp::now()).is_none() {
            return Err(format!("schedule: '{expression}' is never due"));
        }
        Ok(schedule)
    }

    /// The first time after this one.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        Some(next.timestamp())
    }

    /// A time as people of the zone write it.
    pub(crate) fn shown(&self, time: Timestamp) -> String {
        let zoned: Zoned = time.to_zoned(self.zone.clone());
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::new(expression, Some(zone)).unwrap();
        let mut at: Timestamp = from.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..count {
            at = schedule.next(at).unwrap();
            times.push(schedule.shown(at));
        }
        times
    }

    #[test]
    fn fields_are_crontabs() {
        let cases: [(&str, &[&str]); 11] = [
            ("30 */20 * * * *", &["01-01T00:00", "01-01T00:20"]),
            ("*/20 * * * *", &["01-01T00:20", "01-01T00:40", "01-01T01:00"]),
            ("30 3 * * *", &["01-01T03:30", "01-02T03:30"]),
            ("0 9-17/4 * * mon-fri", &["01-01T09:00", "01-01T13:00", "01-01T17:00", "01-02T09:00"]),
            ("0 0 1,15 * *", &["01-15T00:00", "02-01T00:00"]),
            ("0 0 13 * fri", &["01-05T00:00", "01-12T00:00", "01-13T00:00"]),
            ("0 0 * feb,APR 0", &["02-04T00:00", "02-11T00:00"]),
            ("5 4 * * 7", &["01-07T04:05"]),
            ("@hourly", &["01-01T01:00"]),
            ("@weekly", &["01-07T00:00"]),
            ("@monthly", &["02-01T00:00"]),
        ];
        for (expression, expected) in cases {
            let found = times(expression, "UTC", "2024-01-01T00:00:00Z", expected.len());
            let found: Vec<&str> = found.iter().map(|time| &time[5..16]).collect();
            assert_eq!(found, expected, "{expression}");
        }
    }

    #[test]
    fn what_a_clock_that_is_moved_does() {
        // Berlin: 2024-03-31 02:00 becomes 03:00; 2024-10-27 03:00 becomes 02:00.
        let spring = "2024-03-30T12:00:00Z";
        let autumn = "2024-10-26T12:00:00Z";
        let cases: [(&str, &str, &[&str]); 5] = [
            // A time that does not exist: right after the gap.
            ("30 2 * * *", spring, &["03-31T03:00:00+02:00", "04-01T02:30:00+02:00"]),
            ("30 3 * * *", spring, &["03-31T03:30:00+02:00", "04-01T03:30:00+02:00"]),
            // A time that exists twice: once.
            ("30 2 * * *", autumn, &["10-27T02:30:00+02:00", "10-28T02:30:00+01:00"]),
            ("30 3 * * *", autumn, &["10-27T03:30:00+01:00"]),
            // What follows the hours does so.
            (
                "0 * * * *",
                "2024-10-26T23:30:00Z",
                &["10-27T02:00:00+02:00", "10-27T02:00:00+01:00", "10-27T03:00:00+01:00"],
            ),
        ];
        for (expression, from, expected) in cases {
            let found = times(expression, "Europe/Berlin", from, expected.len());
            let found: Vec<&str> = found.iter().map(|time| &time[5..]).collect();
            assert_eq!(found, expected, "{expression} from {from}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        let wrong = |expression: &str, zone: &str| Schedule::new(expression, Some(zone)).unwrap_err();
        for expression in
            ["", "* * * *", "* * * * * * *", "60 * * * *", "* 25 * * *", "@often", "* * * * noday"]
        {
            assert!(wrong(expression, "UTC").contains("is not understood"), "{expression}");
        }
        assert!(wrong("0 0 30 2 *", "UTC").contains("never due"));
        assert!(wrong("@daily", "Europe/Berin").contains("no time zone 'Europe/Berin'"));
    }
}
