//! Refuses who asks too often.

#![expect(clippy::disallowed_types, reason = "all workers count in one table")]

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::gcra::{LINE_BYTES, Left, Rate, Table};
use super::key::Key;
use super::{Build, Parts, Policy, Shared, Verdict};
use crate::document::section::Section;
use crate::document::units::{bytes, rate};
use crate::document::value::Kind;
use crate::document::values::{boolean, integer};
use crate::exchange::error::Denial;
use crate::exchange::{Context, Error, Request};
use crate::telemetry::metrics;

const LIMITS_HINT: &str = "write [\"100/s\", \"1000/m\"]";

/// From one an hour; above that a tick of the table's clock would be too short.
const RATE: RangeInclusive<f64> = 1.0 / 3600.0..=60_000.0;

const BURST: RangeInclusive<i64> = 1..=1_000_000;

/// How long a burst may take to come back, so that no time leaves its bits.
const REFILL_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Of one limit: 512 keys to 134 million.
const TABLE_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 30;
const TABLE_BYTES_DEFAULT: usize = 1 << 20;

/// How often who may ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    key: Key,
    limits: Vec<Limit>,
    /// What counts in the place of `limits` for who has been found to be one of these.
    overrides: Vec<(String, Vec<Limit>)>,
    /// Bytes of each limit's table.
    table: usize,
    /// Whether clients are told what they have left.
    fields: bool,
    observe: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Limit {
    /// As written.
    text: String,
    rate: Rate,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let short = |kind: &Kind| limit(kind, None);
        let long = |table: &mut Section<'_>| {
            let burst = table.optional("burst", integer(BURST));
            table.required("rate", "write \"100/s\"", |kind| limit(kind, burst))
        };
        let limits = table.list_or_tables("limits", LIMITS_HINT, short, long);
        let overrides = table.named_lists_or_tables("overrides", LIMITS_HINT, short, long);
        Self {
            key: Key::read(table),
            limits,
            overrides,
            table: table.value("table", TABLE_BYTES_DEFAULT, bytes(TABLE_BYTES)),
            fields: table.value("fields", true, boolean),
            observe: table.value("observe", false, boolean),
        }
    }
}

/// `"100/s"`, whose burst is 100 unless it is said.
fn limit(kind: &Kind, burst: Option<u32>) -> Result<Limit, String> {
    let per_second = rate(RATE)(kind)?;
    let text = match kind {
        Kind::Text(text) => text.clone(),
        _ => format!("{per_second}/s"),
    };
    let count = text.split('/').next().and_then(|count| count.parse::<f64>().ok());
    let burst = burst.unwrap_or_else(|| count.unwrap_or(1.0).ceil().clamp(1.0, 1e6) as u32);
    let interval_ns = (1e9 / per_second).round() as u64;
    if interval_ns.saturating_mul(u64::from(burst)) > REFILL_MAX.as_nanos() as u64 {
        return Err(format!("a burst of {burst} would take more than 30 days to come back"));
    }
    Ok(Limit { text, rate: Rate { interval_ns, burst } })
}

impl Settings {
    /// Whether some have limits of their own by name, and yet are not told apart by it.
    pub fn has_nameless_overrides(&self) -> bool {
        !self.overrides.is_empty() && !self.key.has_identity()
    }

    /// What it counts together.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Limits that are kept together: everybody's, then those of names, with whom they are for.
    fn quotas(&self) -> Vec<(&[Limit], Vec<&str>)> {
        let mut quotas: Vec<(&[Limit], Vec<&str>)> = vec![(&self.limits, Vec::new())];
        for (name, limits) in &self.overrides {
            match quotas.iter_mut().skip(1).find(|(known, _)| known == limits) {
                Some((_, names)) => names.push(name),
                None => quotas.push((limits, vec![name])),
            }
        }
        quotas
    }

    /// Those of a quota, in which nobody has been counted.
    fn tables(&self, (limits, names): &(&[Limit], Vec<&str>)) -> Arc<[Table]> {
        let (bytes, epoch) = (self.table_of(names.len()), Instant::now());
        limits.iter().map(|limit| Table::new(limit.rate, bytes, epoch)).collect()
    }

    /// Bytes of each table that so many names have for themselves.
    fn table_of(&self, names: usize) -> usize {
        match names > 0 && self.key.is_identity() {
            // A line each would do, but they spread unevenly.
            true => self.table.min(2 * names.next_power_of_two() * LINE_BYTES),
            false => self.table,
        }
    }
}

/// What all workers count in.
#[derive(Debug)]
struct Tables {
    hashes: RandomState,
    /// One for each limit of each quota.
    all: Vec<Arc<[Table]>>,
}

impl Build for Settings {
    fn shared(&self) -> Shared {
        let all = self.quotas().iter().map(|quota| self.tables(quota)).collect();
        Some(Arc::new(Tables { hashes: RandomState::new(), all }))
    }

    /// Quotas that are what they were go on, so that one more name forgives no other.
    fn shared_after(&self, before: &Self, state: &Shared) -> Shared {
        let state = state.as_ref().and_then(|state| state.downcast_ref::<Tables>());
        let Some(state) = state.filter(|_| self.key == before.key) else { return self.shared() };
        let quotas_before = before.quotas();
        let all = self.quotas().into_iter().enumerate().map(|(at, quota)| {
            let is_same = |(position, (limits, names)): &(usize, &(&[Limit], Vec<&str>))| {
                // Everybody's stay everybody's.
                (*position == 0) == (at == 0)
                    && *limits == quota.0
                    && before.table_of(names.len()) == self.table_of(quota.1.len())
            };
            let same = quotas_before.iter().enumerate().find(is_same);
            let kept = same.and_then(|(position, _)| state.all.get(position));
            kept.map_or_else(|| self.tables(&quota), Arc::clone)
        });
        Some(Arc::new(Tables { hashes: state.hashes.clone(), all: all.collect() }))
    }

    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let shared = parts.shared.clone().or_else(|| self.shared());
        let tables = shared.and_then(|shared| shared.downcast::<Tables>().ok());
        let quotas = self.quotas();
        let own = quotas
            .iter()
            .enumerate()
            .flat_map(|(at, (_, names))| names.iter().map(move |name| ((*name).to_owned(), at)));
        Rc::new(RateLimit {
            name: parts.name.to_owned(),
            overrides: own.collect(),
            quotas: quotas.iter().map(|(limits, _)| Quota::new(parts.name, limits)).collect(),
            key: self.key.clone(),
            tables,
            fields: self.fields,
            observe: self.observe,
            counters: Arc::clone(&parts.counters),
        })
    }
}

/// What clients are told about limits that are kept together.
struct Quota {
    /// What a person is told.
    text: String,
    /// Of the limits, as items of structured fields.
    names: Vec<String>,
    policy_field: Bytes,
}

impl Quota {
    fn new(policy: &str, limits: &[Limit]) -> Self {
        let names = limits.iter().map(|Limit { text, .. }| match limits.len() {
            1 => format!("\"{policy}\""),
            _ => format!("\"{policy} {text}\""),
        });
        let names: Vec<_> = names.collect();
        let shown = |limit: &Limit| format!("{} after {}", limit.text, limit.rate.burst);
        let text = limits.iter().map(shown).collect::<Vec<_>>().join(" and ");
        Self { text, policy_field: policy_field(&names, limits), names }
    }
}

/// What `RateLimit-Policy` says: a quota of `q` requests in each window of `w` seconds.
fn policy_field(names: &[String], limits: &[Limit]) -> Bytes {
    let items = names.iter().zip(limits).map(|(name, Limit { rate, .. })| {
        let window = rate.interval_ns.saturating_mul(rate.burst.into()).div_ceil(1_000_000_000);
        format!("{name};q={};w={window}", rate.burst)
    });
    items.collect::<Vec<_>>().join(", ").into()
}

/// A worker's part in it.
struct RateLimit {
    name: String,
    key: Key,
    /// `None` if it were another policy's, which cannot be.
    tables: Option<Arc<Tables>>,
    /// Everybody's, then those of names.
    quotas: Vec<Quota>,
    /// Which of them is whose.
    overrides: HashMap<String, usize>,
    fields: bool,
    observe: bool,
    counters: Arc<metrics::Policy>,
}

impl Policy for RateLimit {
    fn rule(&self, request: &Request<'_>) -> String {
        let own = self.own(request);
        let limits = self.quotas.get(own).map_or("", |quota| &quota.text);
        let whose = match own {
            0 => String::new(),
            _ => format!(", of {}", request.identity()),
        };
        let observed = if self.observe { ", which is only counted" } else { "" };
        format!("{limits}, {}{whose}{observed}", self.key)
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let Some(Tables { hashes, all }) = self.tables.as_deref() else {
            return Verdict::Continue;
        };
        let own = self.own(request);
        let (Some(all), Some(quota)) = (all.get(own), self.quotas.get(own)) else {
            return Verdict::Continue;
        };
        let hash = self.key.point(request, context, hashes);
        let now = request.received;
        // One that is over a limit counts in none. Between looking and counting another thread may count;
        // then it is refused, though it counts in the limits before.
        let open = |table: &Table| table.left(hash, now).requests > 0;
        let within = match &all[..] {
            [only] => only.admit(hash, now),
            several => {
                several.iter().all(open) && several.iter().all(|table| table.admit(hash, now))
            }
        };
        if self.observe {
            if !within {
                self.counters.observed.add(1);
                context.observe(&self.name);
            }
            return Verdict::Continue;
        }
        if self.fields || !within {
            let left: Vec<_> = all.iter().map(|table| table.left(hash, now)).collect();
            self.tell(quota, &left, within, context);
        }
        match within {
            true => Verdict::Continue,
            false => Verdict::Refuse(Error::Denied(Denial::TooOften)),
        }
    }
}

impl RateLimit {
    /// Which quota is a client's.
    fn own(&self, request: &Request<'_>) -> usize {
        let own = match self.overrides.is_empty() {
            true => None,
            false => self.overrides.get(request.identity()),
        };
        own.copied().unwrap_or(0)
    }

    /// What a client is told (draft-ietf-httpapi-ratelimit-headers-11, and RFC 9110 §10.2.3).
    fn tell(&self, quota: &Quota, left: &[Left], within: bool, context: &Context) {
        let mut edits = context.response_edits.borrow_mut();
        if self.fields {
            let mut value = String::new();
            for (name, Left { requests, reset, .. }) in quota.names.iter().zip(left) {
                let separator = if value.is_empty() { "" } else { ", " };
                let reset = seconds(*reset);
                // Writing to a String does not fail.
                let _ = write!(value, "{separator}{name};r={requests};t={reset}");
            }
            edits.add(Bytes::from_static(b"ratelimit-policy"), quota.policy_field.clone());
            edits.add(Bytes::from_static(b"ratelimit"), value.into());
        }
        if !within {
            let wait = left.iter().map(|left| left.wait).max().unwrap_or_default();
            let wait = seconds(wait).max(1).to_string();
            edits.set(Bytes::from_static(b"retry-after"), wait.into());
        }
    }
}

/// Whole ones, rounded up from a millisecond on: the table's clock has a grain, too.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_millis() > 0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asker, build, settings};
    use super::*;

    const OVER: Verdict = Verdict::Refuse(Error::Denied(Denial::TooOften));

    fn policy(lines: &str) -> Rc<dyn Policy> {
        build("api", &settings(lines, Settings::read).unwrap())
    }

    #[test]
    fn clients_are_told_what_they_have_left() {
        let policy = policy("limits = [{ rate = '10/m', burst = 2 }]");
        let asker = Asker::get("/");
        let first = asker.of(&*policy);
        assert_eq!(first.verdict, Verdict::Continue);
        let said =
            |r, t| format!("ratelimit-policy: \"api\";q=2;w=12\nratelimit: \"api\";r={r};t={t}\n");
        assert_eq!(first.response, said(1, 6));
        assert_eq!(asker.of(&*policy).response, said(0, 12));
        let third = asker.of(&*policy);
        assert_eq!(third.verdict, OVER);
        assert_eq!(third.response, said(0, 12) + "retry-after: 6\n");
        let later = asker.later(7);
        assert_eq!(later.of(&*policy).verdict, Verdict::Continue);
        assert_eq!(later.of(&*policy).verdict, OVER);
        assert_eq!(asker.from("192.0.2.2").of(&*policy).verdict, Verdict::Continue);
    }

    #[test]
    fn every_limit_counts_and_a_refused_request_in_none() {
        let policy = policy("limits = ['2/s', '3/m']\nfields = false");
        let start = Asker::get("/");
        let at = |seconds| start.later(seconds).of(&*policy);
        let verdicts: Vec<_> = [0, 0, 0, 0, 1, 2, 3].map(|second| at(second).verdict).into();
        let passed = Verdict::Continue;
        assert_eq!(verdicts, [passed, passed, OVER, OVER, passed, OVER, OVER]);
        let refused = at(4);
        assert_eq!(refused.response, "retry-after: 16\n");
        assert_eq!(at(20).verdict, passed);
    }

    #[test]
    fn observing_refuses_nothing() {
        let policy = policy("limits = ['1/m']\nobserve = true");
        for _ in 0..3 {
            let answered = Asker::get("/").of(&*policy);
            assert_eq!((answered.verdict, &*answered.response), (Verdict::Continue, ""));
        }
        Asker::get("/").ask(|request, context| {
            assert_eq!(policy.request(request, context), Verdict::Continue);
            assert_eq!(*context.observed.borrow(), "api");
        });
    }

    #[test]
    fn names_may_have_limits_of_their_own() {
        let policy = policy(
            "limits = ['1/h']\nkey = 'identity'\n\
             overrides = { alice = ['3/h'], bob = ['3/h'], 'CN=carol, O=x' = ['2/h', '1/h'] }",
        );
        let passes = |name: &str| {
            let asker = Asker::get("/").identity(name);
            (0..9).filter(|_| asker.of(&*policy).verdict == Verdict::Continue).count()
        };
        assert_eq!(["alice", "bob", "CN=carol, O=x", "dave", ""].map(passes), [3, 3, 1, 1, 1]);
        let told = |name: &str| Asker::get("/").identity(name).of(&*policy).response;
        assert!(told("bob").starts_with("ratelimit-policy: \"api\";q=3;w=3600\n"));
        assert!(told("dave").starts_with("ratelimit-policy: \"api\";q=1;w=3600\n"));
        let quotas = "\"api 2/h\";q=2;w=3600, \"api 1/h\";q=1;w=3600\n";
        assert!(told("CN=carol, O=x").starts_with(&format!("ratelimit-policy: {quotas}")));
    }

    #[test]
    fn a_burst_is_what_the_rate_says() {
        let burst = |lines: &str| {
            let settings = settings(lines, Settings::read).unwrap();
            settings.limits.iter().map(|limit| limit.rate.burst).collect::<Vec<_>>()
        };
        assert_eq!(burst("limits = ['100/s', '1000/m', '0.5/s', 7]"), [100, 1000, 1, 7]);
        let wrong =
            settings("limits = ['0/s', { rate = '1/h', burst = 1000 }, {}]", Settings::read);
        let wrong = wrong.unwrap_err().join("\n");
        for part in ["must be", "30 days", "limits[2].rate: missing"] {
            assert!(wrong.contains(part), "{wrong}");
        }
    }
}
