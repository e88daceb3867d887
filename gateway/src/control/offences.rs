//! Who broke the rules lately, in a few lines of the log instead of one for each time.

#![expect(clippy::disallowed_types, reason = "several parts of control keep bans")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::sources::Keeper;
use crate::telemetry::metrics::Offence;
use crate::worker::mailbox::Report;

/// How often the log hears of offences.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often the kernel program may forget clients.
const MINUTE: Duration = Duration::from_secs(60);
/// Clients remembered in one interval; what more there are is counted together.
const CLIENTS_MAX: usize = 4096;
/// Clients named in one interval, the worst ones.
const NAMED_MAX: usize = 5;

type Counts = [u32; Offence::LABELS.len()];

/// Offences since the log last heard of them.
#[derive(Debug, Default)]
struct Ledger {
    clients: HashMap<IpAddr, Counts>,
    /// By clients there was no room for.
    others: u32,
}

/// Writes down what workers report, until `stop` says that no more will come.
pub(super) async fn keep(
    mut reports: Receiver<Report>,
    mut stop: oneshot::Receiver<()>,
    keeper: Arc<Keeper>,
) {
    let mut ledger = Ledger::default();
    let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut minutes = interval_at(Instant::now() + MINUTE, MINUTE);
    minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = minutes.tick() => keeper.forget_clients(),
            Some(report) = reports.recv() => {
                keeper.offend(&report);
                ledger.record(report);
            }
            _ = ticks.tick() => {
                ledger.tell();
                keeper.sweep_bans();
                // For what it says when one is lost.
                let _ = keeper.interfaces();
            }
            _ = &mut stop => break,
        }
    }
    while let Ok(report) = reports.try_recv() {
        ledger.record(report);
    }
    ledger.tell();
}

impl Ledger {
    fn record(&mut self, Report { client, offence, .. }: Report) {
        let full = self.clients.len() >= CLIENTS_MAX;
        if full && !self.clients.contains_key(&client) {
            self.others = self.others.saturating_add(1);
            return;
        }
        let counts = self.clients.entry(client).or_default();
        if let Some(count) = counts.get_mut(offence as usize) {
            *count = count.saturating_add(1);
        }
    }

    fn tell(&mut self) {
        for line in self.lines() {
            tracing::warn!("{line}");
        }
        *self = Self::default();
    }

    /// The worst clients, one line each, and how many are left out.
    fn lines(&self) -> Vec<String> {
        let sum = |counts: &Counts| counts.iter().map(|count| u64::from(*count)).sum::<u64>();
        let mut clients: Vec<_> = self.clients.iter().collect();
        clients.sort_by_key(|(client, counts)| (std::cmp::Reverse(sum(counts)), **client));
        let (named, rest) = clients.split_at(clients.len().min(NAMED_MAX));
        let mut lines: Vec<_> =
            named.iter().map(|(client, counts)| line(**client, counts)).collect();
        let left = rest.iter().map(|(_, counts)| sum(counts)).sum::<u64>() + u64::from(self.others);
        if left > 0 {
            lines.push(format!("offences: {left} more by other clients"));
        }
        lines
    }
}

fn line(client: IpAddr, counts: &Counts) -> String {
    let mut line = format!("offences: {client}:");
    for (label, count) in Offence::LABELS.iter().zip(counts).filter(|(_, count)| **count > 0) {
        // Writing to a String does not fail.
        let _ = write!(line, " {label} {count}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn the_worst_are_named_and_the_rest_counted() {
        let mut ledger = Ledger::default();
        for number in 1..=8 {
            for _ in 0..number {
                ledger.record(Report {
                    client: client(number),
                    offence: Offence::Malformed,
                    direct: true,
                });
            }
        }
        ledger.record(Report { client: client(8), offence: Offence::SlowHead, direct: true });
        let lines = ledger.lines();
        assert_eq!(lines[0], "offences: 0.0.0.8: malformed 8 slow_head 1");
        assert_eq!(lines[NAMED_MAX], "offences: 6 more by other clients");
        assert_eq!(lines.len(), NAMED_MAX + 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut ledger = Ledger::default();
        for number in 0..2 * CLIENTS_MAX as u32 {
            ledger.record(Report {
                client: client(number),
                offence: Offence::Malformed,
                direct: true,
            });
        }
        assert_eq!(ledger.clients.len(), CLIENTS_MAX);
        assert_eq!(ledger.others as usize, CLIENTS_MAX);
    }
}
