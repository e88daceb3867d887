//! Wall-clock time as text. A second's text is made once, so a line costs a comparison and a copy.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Format;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const SECONDS_PER_DAY: u64 = 86_400;

/// Writes UTC times in the way a format wants them.
#[derive(Debug)]
pub(super) struct Clock {
    format: Format,
    /// The second `text` says; none at first.
    second: Option<u64>,
    text: Vec<u8>,
}

impl Clock {
    pub(super) fn new(format: Format) -> Self {
        Self { format, second: None, text: Vec::new() }
    }

    /// Appends `time`: `2026-11-23T06:55:10.123Z` in JSON, `23/Nov/2026:06:55:10 +0000` in
    /// combined. A clock set before 1970 reads as 1970.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since_epoch.as_secs()) {
            self.second = Some(since_epoch.as_secs());
            self.text.clear();
            second(&mut self.text, self.format, since_epoch.as_secs());
        }
        out.extend_from_slice(&self.text);
        if self.format == Format::Json {
            // Writing to a Vec does not fail.
            let _ = write!(out, ".{:03}Z", since_epoch.subsec_millis());
        }
    }
}

fn second(out: &mut Vec<u8>, format: Format, since_epoch: u64) {
    let (year, month, day) = date(since_epoch / SECONDS_PER_DAY);
    let of_day = since_epoch % SECONDS_PER_DAY;
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // Writing to a Vec does not fail.
    let _ = match format {
        Format::Json => write!(out, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}"),
        Format::Combined => {
            let name = MONTHS.get(month - 1).unwrap_or(&"");
            write!(out, "{day:02}/{name}/{year:04}:{h:02}:{m:02}:{s:02} +0000")
        }
    };
}

/// Year, month from 1 and day from 1 of a day counted from 1970-01-01. Howard Hinnant's
/// `civil_from_days`: years begin in March, so that the leap day is a year's last day.
fn date(days_since_epoch: u64) -> (u64, usize, u64) {
    let days = days_since_epoch + 719_468; // since 0000-03-01
    let era = days / 146_097; // 400 years
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month as usize, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn written(clock: &mut Clock, millis: u64) -> String {
        let mut out = Vec::new();
        clock.write(&mut out, UNIX_EPOCH + Duration::from_millis(millis));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_instants() {
        let mut json = Clock::new(Format::Json);
        let mut combined = Clock::new(Format::Combined);
        for (millis, as_json, as_combined) in [
            (0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z", "28/Feb/2000:23:59:59 +0000"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z", "29/Feb/2000:00:00:00 +0000"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z", "01/Mar/2000:00:00:00 +0000"),
            (1_795_417_510_007, "2026-11-23T07:05:10.007Z", "23/Nov/2026:07:05:10 +0000"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000"),
        ] {
            assert_eq!(written(&mut json, millis), as_json);
            assert_eq!(written(&mut combined, millis), as_combined);
        }
    }

    #[test]
    fn every_day_for_400_years_follows_the_one_before() {
        let length = |year: u64, month: usize| match month {
            2 if year.is_multiple_of(4)
                && (!year.is_multiple_of(100) || year.is_multiple_of(400)) =>
            {
                29
            }
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for day in 0..146_097 {
            assert_eq!(date(day), expected);
            let (y, m, d) = expected;
            expected = match (m, d) {
                (12, 31) => (y + 1, 1, 1),
                _ if d == length(y, m) => (y, m + 1, 1),
                _ => (y, m, d + 1),
            };
        }
    }
}
