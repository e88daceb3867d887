//! Quantities with units: durations, bytes and rates. A bare number is refused where a reader
//! would have to guess what it counts.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::shown;
use super::value::Kind;

/// Milliseconds in a unit, the largest first.
const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Bytes in a unit, the largest first.
const BYTES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Seconds in what a rate may be counted over.
const PERIODS: [(&str, f64); 3] = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// `"10s"`.
pub(crate) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Kind) -> Result<Duration, String> {
    move |kind| {
        let millis = quantity(kind, &DURATIONS, "a duration", "ms, s, m, h or d, as in \"10s\"")?;
        let duration = Duration::from_millis(millis);
        if range.contains(&duration) {
            return Ok(duration);
        }
        let show = |duration: &Duration| {
            show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS)
        };
        Err(format!("must be {} to {}", show(range.start()), show(range.end())))
    }
}

/// `"16KiB"`, as whatever integer the range fits in.
pub(crate) fn bytes<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&Kind) -> Result<T, String> {
    move |kind| {
        let bytes = quantity(kind, &BYTES, "a size", "B, KiB, MiB, GiB or TiB, as in \"16KiB\"")?;
        let in_range = T::try_from(bytes).ok().filter(|_| range.contains(&bytes));
        let ends = || (show(*range.start(), &BYTES), show(*range.end(), &BYTES));
        in_range.ok_or_else(|| format!("must be {} to {}", ends().0, ends().1))
    }
}

/// `"240B/s"`, in bytes a second.
pub(crate) fn byte_rate(range: RangeInclusive<u64>) -> impl Fn(&Kind) -> Result<u64, String> {
    move |kind| {
        let size = match kind {
            Kind::Text(text) => text.strip_suffix("/s").and_then(|size| scaled(size, &BYTES)),
            _ => None,
        };
        let size = size.ok_or_else(|| {
            "must be bytes a second: write them as \"240B/s\" or \"1KiB/s\"".to_owned()
        })?;
        let ends = || (show(*range.start(), &BYTES), show(*range.end(), &BYTES));
        let out_of_range = || format!("must be {}B/s to {}/s", ends().0, ends().1);
        range.contains(&size).then_some(size).ok_or_else(out_of_range)
    }
}

/// `"20%"`.
pub(crate) fn percent(range: RangeInclusive<u32>) -> impl Fn(&Kind) -> Result<u32, String> {
    move |kind| {
        let number = match kind {
            Kind::Text(text) => text.strip_suffix('%').and_then(|number| number.parse().ok()),
            _ => None,
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let (start, end) = (range.start(), range.end());
            format!("must be {start}% to {end}%: write \"20%\"")
        })
    }
}

/// `50`, `0.5`, `"50"`, `"50/s"` or `"30/m"`, per second.
pub(crate) fn rate(range: RangeInclusive<f64>) -> impl Fn(&Kind) -> Result<f64, String> {
    move |kind| {
        let rate = match kind {
            #[expect(clippy::cast_precision_loss, reason = "what f64 cannot hold is out of range")]
            Kind::Integer(integer) => *integer as f64,
            Kind::Float(float) => *float,
            Kind::Text(text) => per_second(text).ok_or_else(|| {
                format!("{} is not a rate: write \"50/s\" or \"30/m\"", shown(text))
            })?,
            other => return Err(format!("must be a rate such as \"50/s\", is {}", other.name())),
        };
        let message =
            || format!("must be {} to {}", show_rate(*range.start()), show_rate(*range.end()));
        range.contains(&rate).then_some(rate).ok_or_else(message)
    }
}

fn per_second(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
    let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == unit)?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    number.parse::<f64>().ok().filter(|_| plain).map(|number| number / seconds)
}

fn quantity(kind: &Kind, units: &[(&str, u64)], noun: &str, hint: &str) -> Result<u64, String> {
    match kind {
        Kind::Text(text) => scaled(text, units).ok_or_else(|| {
            format!("{} is not {noun}: write a whole number with {hint}", shown(text))
        }),
        Kind::Integer(number) => Err(format!("{number} has no unit: write it with {hint}")),
        other => {
            Err(format!("must be {noun}, is {}: write a whole number with {hint}", other.name()))
        }
    }
}

/// The number in the smallest unit; what is too large for that is as good as the largest.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).filter(|_| digits > 0)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*factor))
}

/// A size as a configuration has it.
pub(crate) fn shown_bytes(bytes: u64) -> String {
    show(bytes, &BYTES)
}

/// In the largest unit that leaves a whole number.
fn show(number: u64, units: &[(&str, u64)]) -> String {
    let whole =
        units.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
    whole.map_or_else(|| "0".to_owned(), |(unit, factor)| format!("{}{unit}", number / factor))
}

fn show_rate(rate: f64) -> String {
    match rate {
        1.0.. => format!("{rate}/s"),
        rate if rate * 60.0 < 1.0 => format!("{}/h", rate * 3600.0),
        rate => format!("{}/m", rate * 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Kind {
        Kind::Text(text.to_owned())
    }

    #[test]
    fn reads_durations() {
        let read = duration(Duration::from_millis(1)..=Duration::from_secs(86_400));
        assert_eq!(read(&text("1ms")), Ok(Duration::from_millis(1)));
        assert_eq!(read(&text("10s")), Ok(Duration::from_secs(10)));
        assert_eq!(read(&text("5m")), Ok(Duration::from_secs(300)));
        assert_eq!(read(&text("24h")), Ok(Duration::from_secs(86_400)));
        assert_eq!(read(&text("1d")), Ok(Duration::from_secs(86_400)));
        for out in ["0s", "25h", "2d", "99999999999999999999h"] {
            assert_eq!(read(&text(out)), Err("must be 1ms to 1d".to_owned()), "{out}");
        }
        for wrong in ["", "s", "10", "10 s", "+1s", "-1s", "1.5s", "10sec", "10S", "1é", "é"] {
            assert!(read(&text(wrong)).unwrap_err().contains("is not a duration"), "{wrong}");
        }
        assert!(read(&Kind::Integer(10)).unwrap_err().starts_with("10 has no unit"));
    }

    #[test]
    fn reads_sizes() {
        let read = bytes::<u64>(0..=1 << 40);
        assert_eq!(read(&text("0B")), Ok(0));
        assert_eq!(read(&text("1000B")), Ok(1000));
        assert_eq!(read(&text("16KiB")), Ok(16_384));
        assert_eq!(read(&text("1TiB")), Ok(1 << 40));
        assert_eq!(read(&text("2TiB")), Err("must be 0 to 1TiB".to_owned()));
        assert!(read(&text("16KB")).is_err() && read(&text("16kib")).is_err());
        assert_eq!(bytes::<u8>(0..=1 << 20)(&text("1KiB")), Err("must be 0 to 1MiB".to_owned()));
    }

    #[test]
    fn reads_rates() {
        let read = rate(0.5..=60_000.0);
        for fifty in [text("50/s"), text("50"), text("3000/m"), Kind::Integer(50)] {
            assert_eq!(read(&fifty), Ok(50.0));
        }
        assert_eq!(read(&text("0.5/s")), Ok(0.5));
        assert_eq!(read(&Kind::Float(0.5)), Ok(0.5));
        for out in [Kind::Integer(0), Kind::Float(f64::NAN), Kind::Integer(i64::MAX), text("0/s")] {
            assert_eq!(read(&out), Err("must be 30/m to 60000/s".to_owned()));
        }
        for wrong in ["", "/s", "50/", "50/x", "50s", "-1/s", "1e3/s", "inf", "nan/s", "."] {
            assert!(read(&text(wrong)).unwrap_err().contains("is not a rate"), "{wrong}");
        }
    }
}
