//! Bans, from an offence or a command to where they are kept: the kernel, the table workers ask, and
//! for networks wider than a source the list.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use gateway_ebpf::abi::{BANS_MAX, LIST_IMPLIED_MAX};
use ipnet::IpNet;

use super::Event;
use super::sources::{Keeper, locked};
use crate::admission::bans::{Ban, Bans, Full};
use crate::admission::{Entry, Source, Treatment, address_of, unix_now};
use crate::telemetry::metrics::Offence;
use crate::telemetry::prometheus::BanCounts;
use crate::worker::mailbox::Report;
use crate::xdp;

/// Banned networks wider than a source: most of what lists may have beside what is written in them.
const WIDE_MAX: usize = LIST_IMPLIED_MAX as usize / 2;

/// What nobody says otherwise: how long a ban is remembered once it has ended.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// What a ban is for that no offence has led to, where nobody has said.
pub(super) const BY_HAND: &str = "by hand";

impl Keeper {
    /// Takes an offence down, and bans who has committed too many.
    pub fn offend(&self, report: &Report) {
        let Some(settings) = locked(&self.banning).clone() else { return };
        let source = self.source_of(IpNet::from(report.client));
        if locked(&self.current).allowed(source).is_some() {
            return;
        }
        let mut bans = locked(&self.bans);
        let now = unix_now();
        let Some(ban) = bans.offend(&settings, source, report.offence, report.direct, now) else {
            return;
        };
        let (network, lasts, reason) = (ban.network, ban.until.saturating_sub(now), &ban.reason);
        if !settings.enforce {
            self.bans_observed.fetch_add(1, Relaxed);
            tracing::warn!("would ban {network} for {lasts}s: {reason} (bans.enforce is false)");
            return;
        }
        let place = match ban.in_kernel {
            true => "",
            false => ", by answering 403: it comes through a proxy, whose packets are others', too",
        };
        match self.take_down(&mut bans, &ban) {
            Ok(_) => tracing::warn!("banned {network} for {lasts}s: {reason}{place}"),
            Err(full) => tracing::warn!("cannot ban {network} for {lasts}s ({reason}): {full}"),
        }
    }

    /// Takes a ban by hand, or one of another gateway's; what is banned now, and whose ban has given way to it, if
    /// one had to.
    ///
    /// # Errors
    /// When it is allowed, or there are too many.
    pub fn ban(&self, ban: Ban) -> Result<(IpNet, Option<IpNet>), String> {
        let network = self.source_of(ban.network);
        if let Some(entry) = locked(&self.current).allowed(network) {
            let (allowed, origin) = (entry.network, &entry.origin);
            return Err(format!("{network} is allowed: {allowed} ({origin})"));
        }
        let mut bans = locked(&self.bans);
        let wide = || bans.held(unix_now()).iter().filter(|ban| self.is_wide(ban.network)).count();
        if self.is_wide(network) && wide() >= WIDE_MAX {
            return Err(format!("{WIDE_MAX} networks are banned already: put it on a deny list"));
        }
        let ban = Ban { network, ..ban };
        let given_up = self.take_down(&mut bans, &ban).map_err(|full| full.to_string())?;
        Ok((network, given_up))
    }

    /// Takes a ban down and keeps it. Whose ban has given way, if it still held; nobody's does unsaid.
    fn take_down(&self, bans: &mut Bans, ban: &Ban) -> Result<Option<IpNet>, Full> {
        let given_up = bans.insert(ban.clone()).inspect_err(|_| {
            self.bans_refused.fetch_add(1, Relaxed);
        })?;
        let now = unix_now();
        let held = given_up.as_ref().filter(|ban| ban.until > now);
        let network = held.map(|ban| ban.network);
        if let Some(Ban { network, until, .. }) = held {
            self.bans_given_up.fetch_add(1, Relaxed);
            let left = until - now;
            tracing::warn!(
                "no longer banned: {network}, {left}s early, as there are {BANS_MAX} bans"
            );
        }
        // First, as the kernel has room for no more either.
        self.give_up(given_up);
        self.keep(ban);
        Ok(network)
    }

    /// Ends a ban. False when there is none.
    pub fn unban(&self, network: IpNet) -> bool {
        let mut bans = locked(&self.bans);
        let ended = bans.remove(self.source_of(network));
        let was_banned = ended.as_ref().is_some_and(|ban| ban.until > unix_now());
        self.give_up(ended);
        was_banned
    }

    /// Takes over the bans that the kernel has kept from another process.
    pub fn adopt(&self) {
        let kept = self.kernel().map(|kernel| kernel.program().bans()).transpose();
        let kept = kept.unwrap_or_else(|error| {
            tracing::warn!("xdp: {error}");
            None
        });
        let (now, remember) = (unix_now(), self.remember());
        let mut bans = locked(&self.bans);
        for (source, kept) in kept.into_iter().flatten() {
            let label = kept.reason.checked_sub(1).and_then(|at| Offence::LABELS.get(at as usize));
            let network = self.source_of(IpNet::from(address_of(source)));
            let reason = label.map_or(BY_HAND, |label| *label).to_owned();
            let xdp::Ban { until, level, in_kernel, .. } = kept;
            let ban = Ban { network, until, level, reason, in_kernel };
            if !ban.is_known(remember, now) {
                // Nobody else would ever make room.
                self.unban_in_kernel(source, network.addr());
                continue;
            }
            // The kernel has had room for all of them.
            let _ = bans.insert(ban);
            self.counts().ban(source, until);
        }
        let networks = self.kernel().map(xdp::Xdp::kept_networks).unwrap_or_default();
        for (network, until) in networks {
            let (network, until, reason) = (*network, *until, BY_HAND.to_owned());
            let ban = Ban { network, until, level: 0, reason, in_kernel: true };
            match bans.insert(ban) {
                Ok(given_up) => self.give_up(given_up),
                Err(full) => tracing::warn!("no longer banned: {network}: {full}"),
            }
        }
        let (held, ended) = (bans.count(now), bans.ended(now).count());
        if held + ended > 0 {
            tracing::info!("xdp: {held} bans go on, and {ended} that have ended are known");
        }
    }

    /// Bans that hold, each with the connections it has cost in the kernel.
    pub fn held(&self) -> Vec<(Ban, u64)> {
        let held = locked(&self.bans).held(unix_now());
        let in_kernel = self.kernel().and_then(|kernel| kernel.program().bans().ok());
        let in_kernel: HashMap<_, _> = in_kernel.unwrap_or_default().into_iter().collect();
        let list = self.kernel().and_then(|kernel| kernel.program().list_hits().ok());
        let list = list.unwrap_or_default();
        let hits = |ban: &Ban| {
            if self.is_wide(ban.network) {
                return list.get(&ban.network).copied().unwrap_or(0);
            }
            let source = self.counts().source(ban.network.addr());
            in_kernel.get(&source).map_or(0, |ban| ban.hits)
        };
        held.into_iter().map(|ban| (ban.clone(), hits(&ban))).collect()
    }

    /// How many of the bans that hold are not the kernel's, as their sources come through a proxy.
    pub fn bans_by_workers(&self) -> usize {
        let held = locked(&self.bans).held(unix_now());
        held.iter().filter(|ban| !ban.in_kernel).count()
    }

    /// What has become of bans so far, and how many hold.
    pub fn ban_counts(&self) -> BanCounts {
        BanCounts {
            made: self.bans_made.load(Relaxed),
            observed: self.bans_observed.load(Relaxed),
            refused: self.bans_refused.load(Relaxed),
            given_up: self.bans_given_up.load(Relaxed),
            held: locked(&self.bans).count(unix_now()) as u64,
        }
    }

    /// Takes out of the tables what has ended, and out of the kernel what is to be forgotten. Nothing depends on
    /// it but that there is room.
    pub fn sweep_bans(&self) {
        let (now, remember) = (unix_now(), self.remember());
        let mut bans = locked(&self.bans);
        for ban in bans.forget(remember, now) {
            if !self.is_wide(ban.network) {
                self.forget(&ban);
            }
        }
        for ban in bans.ended(now).filter(|ban| !self.is_wide(ban.network)) {
            self.counts().ban(self.counts().source(ban.network.addr()), 0);
        }
    }

    /// How long bans that have ended are known.
    fn remember(&self) -> Duration {
        locked(&self.banning).as_ref().map_or(REMEMBERED, |bans| bans.remember)
    }

    /// Entries of the list for the banned networks that are wider than a source.
    pub fn banned_networks(&self) -> Vec<Entry> {
        let held = locked(&self.bans).held(unix_now());
        let wide = held.into_iter().filter(|ban| self.is_wide(ban.network));
        wide.map(|ban| Entry {
            network: ban.network,
            treatment: Treatment::Ban,
            until: Some(ban.until),
            comment: ban.reason,
            origin: "gateway ban".to_owned(),
        })
        .collect()
    }

    /// The network that counts as one source, unless `network` is wider.
    pub(super) fn source_of(&self, network: IpNet) -> IpNet {
        let address = network.addr().to_canonical();
        let length = match address {
            IpAddr::V4(_) => self.prefixes.0,
            IpAddr::V6(_) => self.prefixes.1,
        };
        match network.prefix_len() >= length || address.is_ipv4() != network.addr().is_ipv4() {
            true => IpNet::new(address, length).map_or(network, |source| source.trunc()),
            false => network.trunc(),
        }
    }

    /// Whether it is more than one source.
    fn is_wide(&self, network: IpNet) -> bool {
        let length = if network.addr().is_ipv4() { self.prefixes.0 } else { self.prefixes.1 };
        network.prefix_len() < length
    }

    fn keep(&self, ban: &Ban) {
        self.bans_made.fetch_add(1, Relaxed);
        if self.is_wide(ban.network) {
            return self.renew_list();
        }
        let source = self.counts().source(ban.network.addr());
        self.counts().ban(source, ban.until);
        if !self.banned.swap(true, Relaxed) {
            let _ = self.events.send(Event::Banned);
        }
        let Some(kernel) = self.kernel() else { return };
        let known = Offence::LABELS.iter().position(|label| **label == ban.reason);
        // 0 is by hand.
        let reason = known.map_or(0, |position| position as u32 + 1);
        let Ban { until, level, in_kernel, .. } = *ban;
        let ban_there = xdp::Ban { until, level, reason, hits: 0, in_kernel };
        if let Err(error) = kernel.program().ban(source, ban_there) {
            tracing::warn!("xdp: {}: {error}; workers keep the ban", ban.network);
        }
    }

    /// Has the list made anew, once for all that has changed meanwhile.
    fn renew_list(&self) {
        if !self.list_changed.swap(true, Relaxed) {
            // The loop ends before its channel only when the process does.
            let _ = self.events.send(Event::ListChanged);
        }
    }

    fn give_up(&self, ban: Option<Ban>) {
        match ban {
            Some(ban) if self.is_wide(ban.network) => self.renew_list(),
            Some(ban) => self.forget(&ban),
            None => {}
        }
    }

    fn forget(&self, ban: &Ban) {
        let source = self.counts().source(ban.network.addr());
        self.counts().ban(source, 0);
        self.unban_in_kernel(source, ban.network.addr());
    }

    fn unban_in_kernel(&self, source: Source, address: IpAddr) {
        if let Some(kernel) = self.kernel()
            && let Err(error) = kernel.program().unban(source)
        {
            tracing::warn!("xdp: {address}: {error}");
        }
    }
}
