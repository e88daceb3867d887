//! What sources do, for `gateway top`: once a second, for as long as somebody looks, workers and the kernel
//! are asked, and what they say is told per source and second.

#![expect(clippy::disallowed_types, reason = "whoever looks waits for what one task finds")]

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::Event;
use super::sources::{Keeper, locked};
use crate::admission::bans::Ban;
use crate::admission::{Networks, Source, Tally, address_of, unix_now};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// How long workers have to answer. One that is stuck must not keep what the others say.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// How long it goes on when nobody has asked, as whoever looks asks again and again.
const LINGER: Duration = Duration::from_secs(5);

/// Sources told of for each thing they may have most of.
const SHOWN_MAX: usize = 100;

/// What sources have done in the last second or so. The admin socket's `/sources` tells it as JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// How long that was.
    pub seconds: f64,
    /// How many sources there are.
    pub sources: usize,
    /// How many bans hold.
    pub banned: usize,
    /// Whether the kernel program sees a flood of new sources.
    pub flood: bool,
    /// All of them together.
    pub total: Doings,
    /// Those with the most of anything, and those whose bans end last.
    pub shown: Vec<Doings>,
}

/// What a source does, per second but for what is open.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Doings {
    /// Its address, or its network where sources are networks.
    pub source: String,
    /// Connections let in.
    pub connections_new: f64,
    /// Packets and connections refused, by the kernel and at accept.
    pub drops: f64,
    /// Those that would be, if all that is observed were enforced.
    pub would_drop: f64,
    /// Connections open now.
    pub connections_open: u64,
    /// Requests answered.
    pub requests: f64,
    /// Of those, the ones answered by a status of 4xx.
    pub client_errors: f64,
    /// Bytes of requests' bodies.
    pub bytes_in: f64,
    /// Bytes of responses' bodies.
    pub bytes_out: f64,
    /// The Unix time at which its ban ends.
    pub banned_until: Option<u64>,
}

/// Looks while somebody wants to see.
pub(super) struct Watch {
    keeper: Arc<Keeper>,
    events: UnboundedSender<Event>,
    reports: watch::Sender<Report>,
    /// Until when to look; `None` while nobody does.
    until: Mutex<Option<Instant>>,
}

impl Watch {
    pub fn new(keeper: Arc<Keeper>, events: UnboundedSender<Event>) -> Arc<Self> {
        let (reports, until) = (watch::Sender::new(Report::default()), Mutex::default());
        Arc::new(Self { keeper, events, reports, until })
    }

    /// What is seen next, at most two periods from now.
    pub async fn report(self: &Arc<Self>) -> Report {
        let mut reports = self.reports.subscribe();
        let looks = locked(&self.until).replace(Instant::now() + LINGER).is_some();
        if !looks {
            tokio::spawn(Arc::clone(self).run());
        }
        // The sender lives as long as `self`, so a value always comes.
        let _ = reports.changed().await;
        reports.borrow().clone()
    }

    async fn run(self: Arc<Self>) {
        loop {
            self.look().await;
            // Somebody may have come after the last look, for whom counting begins anew.
            if self.ends() {
                return;
            }
        }
    }

    /// Looks until nobody has asked for a while.
    async fn look(&self) {
        self.tallies(true).await;
        let (mut since, mut before) = (Instant::now(), self.dropped());
        while !self.is_forgotten() {
            sleep(PERIOD).await;
            let (tallies, dropped) = (self.tallies(true).await, self.dropped());
            let lasted = since.elapsed();
            since = Instant::now();
            let rows = rows(tallies, &before, &dropped, self.keeper.kernel().is_some());
            before = dropped;
            self.reports.send_replace(self.tell(rows, lasted));
        }
        self.tallies(false).await;
    }

    fn ends(&self) -> bool {
        let mut until = locked(&self.until);
        let ends = until.is_none_or(|until| until <= Instant::now());
        if ends {
            *until = None;
        }
        ends
    }

    fn is_forgotten(&self) -> bool {
        locked(&self.until).is_none_or(|until| until <= Instant::now())
    }

    /// What all workers say of each source.
    async fn tallies(&self, goes_on: bool) -> HashMap<Source, Tally> {
        let (answers, mut answered) = unbounded_channel();
        let _ = self.events.send(Event::Look { goes_on, answers });
        let until = Instant::now() + ANSWER_TIMEOUT;
        let mut all = HashMap::<Source, Tally>::new();
        while let Ok(Some(tallies)) = timeout_at(until, answered.recv()).await {
            for (source, tally) in tallies {
                *all.entry(source).or_default() += tally;
            }
        }
        all
    }

    /// Packets that the kernel has refused so far, and would have, by source.
    fn dropped(&self) -> HashMap<Source, (u64, u64)> {
        let Some(kernel) = self.keeper.kernel() else { return HashMap::new() };
        match kernel.program().offenders() {
            Ok(offenders) => offenders
                .into_iter()
                .map(|offender| (offender.source, (offender.refused, offender.observed)))
                .collect(),
            Err(error) => {
                tracing::warn!("xdp: {error}");
                HashMap::new()
            }
        }
    }

    fn tell(&self, rows: Vec<Row>, lasted: Duration) -> Report {
        let held = locked(&self.keeper.bans).held(unix_now());
        let mut banned = Networks::default();
        held.iter().for_each(|ban| banned.insert(ban.network, ban.until));
        let seconds = lasted.as_secs_f64();
        let mut total = Tally::default();
        rows.iter().for_each(|row| total += row.tally);
        let sources = rows.len();
        let mut seen = HashSet::new();
        let shown = most(rows).into_iter().map(|row| {
            let network = self.keeper.source_of(IpNet::from(address_of(row.source)));
            seen.insert(network);
            let banned_until = banned.covering(network).copied();
            doings(name(network), banned_until, &row.tally, seconds)
        });
        let mut shown: Vec<_> = shown.collect();
        let quiet = last_to_end(&held).filter(|ban| !seen.contains(&ban.network));
        shown.extend(
            quiet.map(|ban| doings(name(ban.network), Some(ban.until), &Tally::default(), seconds)),
        );
        Report {
            seconds: rounded(seconds),
            sources,
            banned: held.len(),
            flood: self.keeper.flood().is_some_and(|(flooded, _)| flooded),
            shown,
            total: doings("all".to_owned(), None, &total, seconds),
        }
    }
}

/// What a source has done since the last look, the kernel's refusals included.
#[derive(Clone, Copy)]
struct Row {
    source: Source,
    tally: Tally,
}

/// What workers and the kernel say of each source. Where there is a kernel program, it observes what is
/// observed again at accept.
fn rows(
    tallies: HashMap<Source, Tally>,
    before: &HashMap<Source, (u64, u64)>,
    dropped: &HashMap<Source, (u64, u64)>,
    kernel: bool,
) -> Vec<Row> {
    let mut all = tallies;
    if kernel {
        all.values_mut().for_each(|tally| tally.observed = 0);
    }
    for (source, (refused, observed)) in dropped {
        let (refused_before, observed_before) = before.get(source).copied().unwrap_or_default();
        // A source that gave way to others and came back begins anew.
        let refused = refused.checked_sub(refused_before).unwrap_or(*refused);
        let observed = observed.checked_sub(observed_before).unwrap_or(*observed);
        if refused > 0 || observed > 0 {
            let tally = all.entry(*source).or_default();
            tally.refused += refused;
            tally.observed += observed;
        }
    }
    all.into_iter().map(|(source, tally)| Row { source, tally }).collect()
}

/// Those with the most of anything.
fn most(mut rows: Vec<Row>) -> Vec<Row> {
    let things: [fn(&Tally) -> u64; 7] = [
        |tally| tally.open,
        |tally| tally.opened,
        |tally| tally.refused,
        |tally| tally.observed,
        |tally| tally.requests,
        |tally| tally.client_errors,
        |tally| tally.bytes_in + tally.bytes_out,
    ];
    let mut shown = BTreeSet::new();
    for thing in things {
        rows.sort_unstable_by_key(|row| (Reverse(thing(&row.tally)), row.source));
        let some = rows.iter().filter(|row| thing(&row.tally) > 0);
        shown.extend(some.take(SHOWN_MAX).map(|row| row.source));
    }
    rows.retain(|row| shown.contains(&row.source));
    rows
}

/// Those of these bans that are shown, whether their sources do anything or not.
fn last_to_end(held: &[Ban]) -> impl Iterator<Item = &Ban> {
    let mut all: Vec<_> = held.iter().collect();
    all.sort_unstable_by_key(|ban| (Reverse(ban.until), ban.network));
    all.into_iter().take(SHOWN_MAX)
}

fn doings(source: String, banned_until: Option<u64>, tally: &Tally, seconds: f64) -> Doings {
    let rate = |count: u64| rounded(count as f64 / seconds);
    Doings {
        source,
        connections_new: rate(tally.opened),
        drops: rate(tally.refused),
        would_drop: rate(tally.observed),
        connections_open: tally.open,
        requests: rate(tally.requests),
        client_errors: rate(tally.client_errors),
        bytes_in: rate(tally.bytes_in),
        bytes_out: rate(tally.bytes_out),
        banned_until,
    }
}

/// To tenths.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// An address, if the network is no more than that.
fn name(network: IpNet) -> String {
    let length = if matches!(network.addr(), IpAddr::V4(_)) { 32 } else { 128 };
    match network.prefix_len() == length {
        true => network.addr().to_string(),
        false => network.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(requests: u64, observed: u64) -> Tally {
        Tally { requests, observed, ..Tally::default() }
    }

    #[test]
    fn what_the_kernel_has_refused_since_the_last_look_is_added() {
        let tallies = HashMap::from([([1, 0], tally(5, 9))]);
        let before = HashMap::from([([1, 0], (10, 0)), ([2, 0], (7, 7)), ([3, 0], (50, 0))]);
        let now = HashMap::from([
            ([1, 0], (14, 2)),
            ([2, 0], (7, 7)),
            ([3, 0], (3, 0)),
            ([4, 0], (0, 6)),
        ]);
        let mut rows = rows(tallies, &before, &now, true);
        rows.sort_by_key(|row| row.source);
        let seen: Vec<_> =
            rows.iter().map(|row| (row.source[0], row.tally.refused, row.tally.observed)).collect();
        assert_eq!(seen, [(1, 4, 2), (3, 3, 0), (4, 0, 6)]);
        assert_eq!(rows[0].tally.requests, 5);
    }

    #[test]
    fn of_many_sources_those_with_most_of_anything_are_shown() {
        let mut all: Vec<_> = (0..1000_u64)
            .map(|number| Row { source: [number, 0], tally: tally(number, 0) })
            .collect();
        all.push(Row { source: [5000, 0], tally: tally(0, 1) });
        let shown = most(all);
        assert_eq!(shown.len(), SHOWN_MAX + 1);
        assert!(shown.iter().all(|row| row.source[0] >= 900));
    }

    #[test]
    fn rates_are_per_second() {
        let tally = Tally { opened: 3, open: 7, ..Tally::default() };
        let doings = doings("all".to_owned(), None, &tally, 2.0);
        assert_eq!((doings.connections_new, doings.connections_open), (1.5, 7));
    }

    #[test]
    fn a_source_of_one_address_is_called_by_it() {
        for (network, told) in [
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(name(network.parse().unwrap()), told);
        }
    }
}
