//! The table: its columns, its order, and how numbers are written.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use crate::control::{Doings, Report};

/// What is on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// New connections
    New,
    /// What is dropped
    Drops,
    /// What would be dropped if it were enforced
    Would,
    /// Open connections
    Open,
    /// Requests
    Requests,
    /// Answers of 4xx
    Errors,
    /// Bytes, both ways
    Bytes,
    /// Bans, those that end last
    Banned,
}

/// A column.
pub(super) struct Column {
    pub title: &'static str,
    /// Characters.
    pub width: usize,
    pub sort: Option<Sort>,
    pub text: fn(&Doings, SystemTime) -> String,
}

/// From left to right. The longest network that fits is an IPv6 /64's.
pub(super) const COLUMNS: [Column; 10] = [
    Column { title: "SOURCE", width: 24, sort: None, text: |row, _| row.source.clone() },
    Column {
        title: "NEW/s",
        width: 7,
        sort: Some(Sort::New),
        text: |row, _| short(row.connections_new),
    },
    Column { title: "DROP/s", width: 7, sort: Some(Sort::Drops), text: |row, _| short(row.drops) },
    Column {
        title: "WOULD/s",
        width: 7,
        sort: Some(Sort::Would),
        text: |row, _| short(row.would_drop),
    },
    Column {
        title: "OPEN",
        width: 7,
        sort: Some(Sort::Open),
        text: |row, _| short(row.connections_open as f64),
    },
    Column {
        title: "REQ/s",
        width: 7,
        sort: Some(Sort::Requests),
        text: |row, _| short(row.requests),
    },
    Column {
        title: "4XX/s",
        width: 7,
        sort: Some(Sort::Errors),
        text: |row, _| short(row.client_errors),
    },
    Column {
        title: "IN B/s",
        width: 7,
        sort: Some(Sort::Bytes),
        text: |row, _| short(row.bytes_in),
    },
    Column {
        title: "OUT B/s",
        width: 7,
        sort: Some(Sort::Bytes),
        text: |row, _| short(row.bytes_out),
    },
    Column {
        title: "BANNED",
        width: 7,
        sort: Some(Sort::Banned),
        text: |row, now| left(row.banned_until, now),
    },
];

/// Puts those with the most first.
pub(super) fn sort(rows: &mut [Doings], by: Sort) {
    let amount = |row: &Doings| match by {
        Sort::New => row.connections_new,
        Sort::Drops => row.drops,
        Sort::Would => row.would_drop,
        Sort::Open => row.connections_open as f64,
        Sort::Requests => row.requests,
        Sort::Errors => row.client_errors,
        Sort::Bytes => row.bytes_in + row.bytes_out,
        Sort::Banned => row.banned_until.unwrap_or(0) as f64,
    };
    rows.sort_by(|one, other| {
        amount(other).total_cmp(&amount(one)).then_with(|| one.source.cmp(&other.source))
    });
}

/// The whole table.
pub(super) fn text(report: &Report, by: Sort, now: SystemTime) -> String {
    let mut rows = report.shown.clone();
    sort(&mut rows, by);
    let mut text = String::new();
    for column in &COLUMNS {
        pad(&mut text, column, column.title);
    }
    end_line(&mut text);
    for row in std::iter::once(&report.total).chain(&rows) {
        for column in &COLUMNS {
            pad(&mut text, column, &(column.text)(row, now));
        }
        end_line(&mut text);
    }
    text
}

/// Names to the left, numbers to the right.
fn pad(text: &mut String, column: &Column, cell: &str) {
    // Writing to a String does not fail.
    let _ = match column.sort {
        None => write!(text, "{cell:<0$}  ", column.width),
        Some(_) => write!(text, "{cell:>0$}  ", column.width),
    };
}

fn end_line(text: &mut String) {
    text.truncate(text.trim_end().len());
    text.push('\n');
}

/// At most five characters, and nothing for nothing, so that what there is stands out.
fn short(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    if number <= 0.0 {
        return "-".to_owned();
    }
    let mut number = number;
    let mut units = UNITS.iter().peekable();
    while let Some(unit) = units.next() {
        // What would be rounded up to a thousand is one of the next unit.
        if number < 999.5 || units.peek().is_none() {
            let is_whole = number >= 99.95 || (number.fract() < 0.05 && unit.is_empty());
            return if is_whole {
                format!("{number:.0}{unit}")
            } else {
                format!("{number:.1}{unit}")
            };
        }
        number /= 1000.0;
    }
    String::new()
}

/// How long a ban still lasts.
fn left(until: Option<u64>, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let Some(seconds) = until.map(|until| until.saturating_sub(now)) else { return String::new() };
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..360_000 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn report() -> Report {
        let row = |source: &str, requests: f64, drops: f64, until| Doings {
            source: source.to_owned(),
            requests,
            drops,
            connections_open: 3,
            banned_until: until,
            ..Doings::default()
        };
        let shown = vec![
            row("192.0.2.1", 12.5, 0.0, None),
            row("2001:db8:aaaa:bbbb::/64", 1_250.0, 0.0, None),
            row("198.51.100.7", 0.0, 80_200.0, Some(10_600)),
        ];
        let total = row("all", 1_262.5, 80_200.0, None);
        Report { seconds: 1.0, sources: 3, banned: 1, flood: true, total, shown }
    }

    pub fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(10_000)
    }

    #[test]
    fn as_text() {
        let lines = [
            "SOURCE                      NEW/s   DROP/s  WOULD/s     OPEN    REQ/s    4XX/s   IN B/s  OUT B/s   BANNED",
            "all                             -    80.2k        -        3     1.3k        -        -        -",
            "198.51.100.7                    -    80.2k        -        3        -        -        -        -      10m",
            "192.0.2.1                       -        -        -        3     12.5        -        -        -",
            "2001:db8:aaaa:bbbb::/64         -        -        -        3     1.2k        -        -        -",
        ];
        assert_eq!(text(&report(), Sort::Drops, now()), lines.join("\n") + "\n");
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "-"),
            (0.1, "0.1"),
            (7.0, "7"),
            (12.5, "12.5"),
            (99.96, "100"),
            (999.0, "999"),
            (999.6, "1.0k"),
            (1_000.0, "1.0k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (999_999.0, "1.0M"),
            (5e9, "5.0G"),
            (4e18, "4000000T"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
    }

    #[test]
    fn what_is_left_of_a_ban() {
        for (until, text) in [
            (None, ""),
            (Some(9_000), "0s"),
            (Some(10_099), "99s"),
            (Some(13_600), "60m"),
            (Some(10_000 + 86_400), "24h"),
            (Some(10_000 + 30 * 86_400), "30d"),
        ] {
            assert_eq!(left(until, now()), text);
        }
    }
}
