//! Networks as lists have them, a line each: `203.0.113.0/24 until=2026-12-31 # what for`. Whoever takes a
//! list takes these.

use ipnet::IpNet;

use super::problem::shown;
use super::values::network_of;

/// What begins a comment.
pub(crate) const COMMENTS: [char; 2] = ['#', ';'];

/// A network, and what is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed<'a> {
    pub network: IpNet,
    /// The Unix time at which it ends to count, if it does.
    pub until: Option<u64>,
    /// What it is for.
    pub comment: &'a str,
}

impl<'a> Listed<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &'a str) -> Result<Self, String> {
        let (text, comment) = line.split_once(COMMENTS).unwrap_or((line, ""));
        let mut words = text.split_whitespace();
        let network = network_of(words.next().unwrap_or_default())?;
        let mut until = None;
        for word in words {
            let time = word.strip_prefix("until=").ok_or_else(|| {
                let word = shown(word);
                format!("{word} is neither until=… nor a comment, which begins with #")
            })?;
            until = Some(unix_time(time)?);
        }
        Ok(Self { network, until, comment: comment.trim() })
    }
}

/// `2026-12-31` or `2026-12-31T18:30:00Z`, in seconds since 1970.
fn unix_time(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no time: write \"2026-12-31\" or \"2026-12-31T18:30:00Z\" (UTC)");
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let time = time.strip_suffix('Z').ok_or_else(wrong)?;
    let numbers = |text: &str, separator: char| -> Option<[u64; 3]> {
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Option<Vec<u64>> =
            text.split(separator).map(|part| part.parse().ok().filter(|_| plain(part))).collect();
        parts?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-').ok_or_else(wrong)?;
    let [hour, minute, second] = numbers(time, ':').ok_or_else(wrong)?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_month = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !fits {
        return Err(wrong());
    }
    // Years begin in March, so that the leap day is a year's last day (days_from_civil).
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + day;
    // 1970-01-01 by this count.
    let days = days - 719_469;
    Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_network_an_end_and_a_comment() {
        let full = Listed::parse("203.0.113.0/24 until=2026-12-31T18:30:00Z # a ; b ").unwrap();
        assert_eq!(full.network, "203.0.113.0/24".parse().unwrap());
        assert_eq!(full.until, Some(1_798_741_800));
        assert_eq!(full.comment, "a ; b");
        let short = Listed::parse("::1;#").unwrap();
        assert_eq!((short.network, short.comment), ("::1/128".parse().unwrap(), "#"));
        for (wrong, why) in [
            ("", "is no network"),
            ("10.0.0.0/33", "is no network"),
            ("10.0.0.1/8", "write \"10.0.0.0/8\""),
            ("10.0.0.0/8 tomorrow", "neither until"),
            ("10.0.0.0/8 until=tomorrow", "is no time"),
        ] {
            let error = Listed::parse(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(unix_time("1970-01-01"), Ok(0));
        assert_eq!(unix_time("2000-02-29T23:59:59Z"), Ok(951_868_799));
        assert_eq!(unix_time("2000-03-01"), Ok(951_868_800));
        assert_eq!(unix_time("2026-11-23T19:00:00Z"), Ok(1_795_460_400));
        for wrong in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-29",
            "2026-1-1T",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "+026-01-01",
            "1969-12-31",
            "2026-04-31",
        ] {
            assert!(unix_time(wrong).is_err(), "{wrong}");
        }
    }
}
