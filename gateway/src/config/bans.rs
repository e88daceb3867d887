//! `[bans]`: which offences become a ban, and for how long.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::admission::bans::Settings;
use crate::document::section::Section;
use crate::document::units::duration;
use crate::document::value::Kind;
use crate::document::values::{boolean, integer};
use crate::telemetry::metrics::Offence;

const DURATIONS_HINT: &str = "write [\"1m\", \"10m\", \"1h\"]";
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// How long a ban may be, and how long one is remembered.
const LENGTH: RangeInclusive<Duration> = SECOND..=Duration::from_secs(365 * 86_400);
const WINDOW: RangeInclusive<Duration> = SECOND..=DAY;
const POINTS: RangeInclusive<i64> = 1..=1_000_000;
const WEIGHT: RangeInclusive<i64> = 0..=1_000_000;

/// Reads the table. Without it, offences are only counted.
pub(super) fn read(root: &mut Section<'_>) -> Option<Settings> {
    root.has("bans").then(|| root.table("bans", bans))
}

/// How long a ban by hand lasts, as the command line has it.
///
/// # Errors
/// What is wrong with it.
pub fn ban_length(text: &str) -> Result<Duration, String> {
    duration(LENGTH)(&Kind::Text(text.to_owned()))
}

fn bans(table: &mut Section<'_>) -> Settings {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let mut durations = vec![minutes(1), minutes(10), minutes(60)];
    if table.has("durations") {
        durations = table.list("durations", DURATIONS_HINT, duration(LENGTH));
    }
    Settings {
        enforce: table.value("enforce", false, boolean),
        close: table.value("close", true, boolean),
        threshold: table.value("threshold", 20, integer(POINTS)),
        window: table.value("window", minutes(1), duration(WINDOW)),
        durations,
        remember: table.value("remember", DAY, duration(LENGTH)),
        weights: table.table("weights", |table| {
            let mut weights = [0; Offence::LABELS.len()];
            for (index, (weight, label)) in weights.iter_mut().zip(Offence::LABELS).enumerate() {
                // Answers of 4xx are many a good client's.
                let default = u32::from(index != Offence::ClientError as usize);
                *weight = table.value(label, default, integer(WEIGHT));
            }
            weights
        }),
    }
}
