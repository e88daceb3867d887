//! What is told of sources: who was refused at accept, bans, and what the kernel program did.

use super::page::{Kind, Page};
use super::{Scrape, sum};
use crate::telemetry::metrics::{Counter, Refusal};

/// What has become of bans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BanCounts {
    /// Bans made.
    pub made: u64,
    /// Bans only told of.
    pub observed: u64,
    /// Bans there was no room for.
    pub refused: u64,
    /// Bans that ended early, to make room.
    pub given_up: u64,
    /// Bans that hold now.
    pub held: u64,
}

/// Packets the kernel program treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCounter {
    /// Where they came in.
    pub interface: String,
    /// What became of them.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
    /// How many, all CPUs summed.
    pub packets: u64,
}

/// Packets that the kernel program has decided by entries of a list that stand in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListHits {
    /// Its key in the configuration.
    pub list: String,
    /// The file, or the key they are written at.
    pub origin: String,
    /// How many, since each of the entries is there.
    pub packets: u64,
}

pub(super) fn workers(page: &mut Page, scrape: &Scrape<'_>) {
    let workers = scrape.workers;
    let name = "gateway_source_connections_refused_total";
    page.family(name, Kind::Counter, "Connections their source was not to have, seen at accept.");
    for (index, reason) in Refusal::LABELS.iter().enumerate() {
        let count = |of: fn(&(Counter, Counter)) -> &Counter| {
            sum(workers, |worker| worker.sources_refused.get(index).map_or(0, |n| of(n).value()))
        };
        page.sample(name, &[("verdict", "refuse"), ("reason", reason)], count(|both| &both.0));
        page.sample(name, &[("verdict", "observe"), ("reason", reason)], count(|both| &both.1));
    }
    let name = "gateway_source_connections_uncounted_total";
    page.family(name, Kind::Counter, "Connections that no room was left to count by source.");
    page.sample(name, &[], scrape.sources_uncounted);

    let BanCounts { made, observed, refused, given_up, held } = scrape.bans;
    let name = "gateway_bans_total";
    page.family(name, Kind::Counter, "Bans; observe: only told of, no_room: there were too many.");
    for (verdict, bans) in [("ban", made), ("observe", observed), ("no_room", refused)] {
        page.sample(name, &[("verdict", verdict)], bans);
    }
    let name = "gateway_bans_given_up_total";
    page.family(name, Kind::Counter, "Bans that ended early, as there were too many.");
    page.sample(name, &[], given_up);
    let name = "gateway_bans_held";
    page.family(name, Kind::Gauge, "Bans that hold now.");
    page.sample(name, &[], held);
}

/// Without a kernel program the metric is absent rather than zero: nothing was let pass.
pub(super) fn kernel(page: &mut Page, scrape: &Scrape<'_>) {
    if scrape.kernel.is_empty() {
        return;
    }
    let name = "gateway_xdp_packets_total";
    page.family(name, Kind::Counter, "Packets the kernel program looked at.");
    for counter in scrape.kernel {
        let labels = [
            ("interface", counter.interface.as_str()),
            ("verdict", counter.verdict),
            ("reason", counter.reason),
        ];
        page.sample(name, &labels, counter.packets);
    }
    let name = "gateway_xdp_list_hits";
    page.family(name, Kind::Gauge, "Packets decided by the entries there are now, by list.");
    for ListHits { list, origin, packets } in scrape.lists {
        page.sample(name, &[("list", list), ("origin", origin)], packets);
    }
    let name = "gateway_xdp_attached";
    page.family(name, Kind::Gauge, "0 when the program is not on an interface any more.");
    for (interface, attached) in scrape.interfaces {
        page.sample(name, &[("interface", interface)], u64::from(*attached));
    }
    if let Some((flooded, lost)) = scrape.flood {
        let name = "gateway_xdp_flood";
        page.family(name, Kind::Gauge, "1 while there are too many new sources for the kernel.");
        page.sample(name, &[], u64::from(flooded));
        let name = "gateway_xdp_events_lost_total";
        page.family(name, Kind::Counter, "Samples of refused packets that were not logged.");
        page.sample(name, &[], lost);
    }
}
