//! Who is banned, for how long, and who is about to be. No I/O and no clock: control asks it and does
//! what it says.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use std::{fmt, mem};

use gateway_ebpf::abi::BANS_MAX;
use ipnet::IpNet;

use crate::telemetry::metrics::Offence;

/// Offenders remembered at once; where there are more, half of them give way: those whose last offence is longest ago.
const OFFENDERS_MAX: usize = 1 << 16;

/// The table `[bans]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Ban; otherwise only say who would be.
    pub enforce: bool,
    /// End what a banned source has open before it asks again.
    pub close: bool,
    /// Points that make a ban, at least 1.
    pub threshold: u32,
    /// How long points count, from the first of them on.
    pub window: Duration,
    /// How long the first ban lasts, the second, and so on; the last one repeats. At least one.
    pub durations: Vec<Duration>,
    /// How long after a ban the next one still counts as another.
    pub remember: Duration,
    /// Points of each [`Offence`], in the order of its labels.
    pub weights: [u32; Offence::LABELS.len()],
}

/// A ban, or one that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub network: IpNet,
    /// The Unix time at which it ends.
    pub until: u64,
    /// How many came before it.
    pub level: u32,
    /// What for.
    pub reason: String,
    /// Whether the kernel drops what comes from there. Who comes through a proxy cannot be told from others there.
    pub in_kernel: bool,
}

impl Ban {
    /// Whether it holds, or has ended no longer ago than is remembered.
    pub fn is_known(&self, remember: Duration, now: u64) -> bool {
        self.until.saturating_add(remember.as_secs()) > now
    }
}

/// There are [`BANS_MAX`] bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are {BANS_MAX} bans, all of which end later: put networks on a deny list")
    }
}

/// All that is known of bans.
#[derive(Debug, Default)]
pub struct Bans {
    bans: HashMap<IpNet, Ban>,
    /// Their ends and networks, those first that end first.
    ends: BTreeSet<(u64, IpNet)>,
    offenders: HashMap<IpNet, Offender>,
    /// Those that were in the place of `offenders` before, and have done nothing since.
    earlier: HashMap<IpNet, Offender>,
}

#[derive(Debug)]
struct Offender {
    points: u32,
    /// When the first of them was given.
    since: u64,
}

impl Bans {
    /// Takes down an offence; what becomes of who committed it, once that is too much.
    #[must_use]
    pub fn offend(
        &mut self,
        settings: &Settings,
        source: IpNet,
        offence: Offence,
        direct: bool,
        now: u64,
    ) -> Option<Ban> {
        let weight = settings.weights.get(offence as usize).copied().unwrap_or(0);
        if weight == 0 || self.is_banned(source, now) {
            return None;
        }
        let window = settings.window.as_secs();
        let fresh = |offender: &Offender| now.saturating_sub(offender.since) < window;
        if self.offenders.len() >= OFFENDERS_MAX / 2 && !self.offenders.contains_key(&source) {
            self.earlier = mem::take(&mut self.offenders);
        }
        let known = self.earlier.remove(&source).unwrap_or(Offender { points: 0, since: now });
        let offender = self.offenders.entry(source).or_insert(known);
        if !fresh(offender) {
            *offender = Offender { points: 0, since: now };
        }
        offender.points = offender.points.saturating_add(weight);
        if offender.points < settings.threshold {
            return None;
        }
        self.offenders.remove(&source);
        let level = self.bans.get(&source).map_or(0, |ban| ban.level.saturating_add(1));
        let step = usize::try_from(level).unwrap_or(usize::MAX);
        let duration = settings.durations.get(step).or(settings.durations.last());
        let until = now.saturating_add(duration.map_or(0, Duration::as_secs));
        let reason = Offence::LABELS.get(offence as usize).copied().unwrap_or_default().to_owned();
        Some(Ban { network: source, until, level, reason, in_kernel: direct })
    }

    /// Takes a ban down, in the place of one for the same network; where there are [`BANS_MAX`], in that of the
    /// one that ends first, which is returned.
    ///
    /// # Errors
    /// When all of those end later than it would.
    pub fn insert(&mut self, ban: Ban) -> Result<Option<Ban>, Full> {
        let full = self.bans.len() >= BANS_MAX as usize && !self.bans.contains_key(&ban.network);
        let mut given_up = None;
        if full {
            let first_to_end = self.ends.first().filter(|(until, _)| *until <= ban.until);
            let (_, gives_way) = *first_to_end.ok_or(Full)?;
            given_up = self.take(gives_way);
        }
        self.take(ban.network);
        self.ends.insert((ban.until, ban.network));
        self.bans.insert(ban.network, ban);
        Ok(given_up)
    }

    /// Ends a ban and forgets it.
    pub fn remove(&mut self, network: IpNet) -> Option<Ban> {
        self.offenders.remove(&network);
        self.earlier.remove(&network);
        self.take(network)
    }

    fn take(&mut self, network: IpNet) -> Option<Ban> {
        let ban = self.bans.remove(&network)?;
        self.ends.remove(&(ban.until, network));
        Some(ban)
    }

    /// Forgets what ended longer ago than is remembered, and says what that was.
    pub fn forget(&mut self, remember: Duration, now: u64) -> Vec<Ban> {
        let forgotten = self.bans.values().filter(|ban| !ban.is_known(remember, now));
        let forgotten: Vec<_> = forgotten.map(|ban| ban.network).collect();
        forgotten.into_iter().filter_map(|network| self.take(network)).collect()
    }

    /// The bans that have ended and are still known.
    pub fn ended(&self, now: u64) -> impl Iterator<Item = &Ban> {
        self.bans.values().filter(move |ban| ban.until <= now)
    }

    /// Bans that hold, in the order of their networks.
    pub fn held(&self, now: u64) -> Vec<Ban> {
        let mut held: Vec<_> = self.bans.values().filter(|ban| ban.until > now).cloned().collect();
        held.sort_by_key(|ban| ban.network);
        held
    }

    /// How many hold.
    pub fn count(&self, now: u64) -> usize {
        self.bans.values().filter(|ban| ban.until > now).count()
    }

    fn is_banned(&self, network: IpNet, now: u64) -> bool {
        self.bans.get(&network).is_some_and(|ban| ban.until > now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn settings() -> Settings {
        let mut weights = [1; Offence::LABELS.len()];
        weights[Offence::SlowHead as usize] = 5;
        weights[Offence::SlowRead as usize] = 0;
        Settings {
            enforce: true,
            close: true,
            threshold: 10,
            window: Duration::from_secs(60),
            durations: vec![Duration::from_secs(60), Duration::from_secs(600)],
            remember: Duration::from_secs(3600),
            weights,
        }
    }

    fn alice() -> IpNet {
        "192.0.2.1/32".parse().unwrap()
    }

    /// The ban that so many offences at this time lead to.
    fn offend(bans: &mut Bans, offence: Offence, times: usize, now: u64) -> Option<Ban> {
        (0..times).find_map(|_| bans.offend(&settings(), alice(), offence, true, now))
    }

    #[test]
    fn enough_points_within_the_window_make_a_ban() {
        let mut bans = Bans::default();
        assert_eq!(offend(&mut bans, Offence::Malformed, 9, 1000), None);
        // Too long ago to count with these.
        assert_eq!(offend(&mut bans, Offence::Malformed, 9, 1060), None);
        let ban = offend(&mut bans, Offence::Malformed, 1, 1119).unwrap();
        assert_eq!((ban.until, ban.level, ban.reason.as_str()), (1179, 0, "malformed"));
        assert_eq!(offend(&mut bans, Offence::SlowHead, 1, 2000), None);
        assert!(offend(&mut bans, Offence::SlowHead, 1, 2000).is_some());
        assert_eq!(offend(&mut bans, Offence::SlowRead, 100, 3000), None);
    }

    #[test]
    fn whoever_comes_new_is_noticed_however_many_offenders_there_are() {
        let mut bans = Bans::default();
        let once = |bans: &mut Bans, number: usize| {
            let source = IpNet::from(IpAddr::from((number as u32).to_be_bytes()));
            assert_eq!(bans.offend(&settings(), source, Offence::Malformed, true, 1000), None);
        };
        (0..3 * OFFENDERS_MAX).for_each(|number| once(&mut bans, number));
        assert!(bans.offenders.len() + bans.earlier.len() <= OFFENDERS_MAX);
        assert_eq!(offend(&mut bans, Offence::SlowHead, 1, 1000), None);
        (0..OFFENDERS_MAX / 2).for_each(|number| once(&mut bans, number));
        assert!(offend(&mut bans, Offence::SlowHead, 1, 1000).is_some());
    }

    #[test]
    fn each_ban_is_longer_until_it_is_forgotten() {
        let mut bans = Bans::default();
        let at = |bans: &mut Bans, now| {
            let ban = offend(bans, Offence::Malformed, 10, now).unwrap();
            assert_eq!(bans.insert(ban.clone()), Ok(None));
            (ban.level, ban.until - now)
        };
        assert_eq!(at(&mut bans, 0), (0, 60));
        assert_eq!(offend(&mut bans, Offence::Malformed, 100, 59), None, "it is banned");
        assert_eq!(at(&mut bans, 60), (1, 600));
        assert_eq!(at(&mut bans, 700), (2, 600));
        assert!(bans.forget(settings().remember, 1300).is_empty());
        assert_eq!(bans.ended(1300).count(), 1);
        assert_eq!(bans.forget(settings().remember, 1300 + 3600).len(), 1);
        assert_eq!(bans.ended(1300 + 3600).count(), 0);
        assert_eq!(at(&mut bans, 5000), (0, 60));
        assert_eq!(bans.held(5000).len(), 1);
        bans.remove(alice());
        assert_eq!(at(&mut bans, 5001), (0, 60));
    }

    #[test]
    fn the_ban_that_ends_first_gives_way_when_there_are_too_many() {
        let mut bans = Bans::default();
        let ban = |number: u32| Ban {
            network: IpNet::from(IpAddr::from(number.to_be_bytes())),
            until: 1000 + u64::from(number),
            level: 0,
            reason: "a test".to_owned(),
            in_kernel: true,
        };
        for number in 0..BANS_MAX {
            assert_eq!(bans.insert(ban(number)), Ok(None));
        }
        assert_eq!(bans.insert(ban(5)), Ok(None));
        assert_eq!(bans.insert(ban(BANS_MAX)), Ok(Some(ban(0))));
        let soon = Ban { until: 1000, ..ban(BANS_MAX + 1) };
        assert_eq!(bans.insert(soon), Err(Full));
        // One that ends later now is not the first any more.
        let later = Ban { until: u64::MAX, ..ban(1) };
        assert_eq!(bans.insert(later), Ok(None));
        assert_eq!(bans.insert(ban(BANS_MAX + 2)), Ok(Some(ban(2))));
        assert_eq!(bans.remove(ban(3).network), Some(ban(3)));
        assert_eq!(bans.insert(ban(BANS_MAX + 3)), Ok(None));
        assert_eq!(bans.insert(ban(BANS_MAX + 4)), Ok(Some(ban(4))));
        assert_eq!(bans.ends.len(), bans.bans.len());
        assert_eq!(bans.held(0).len(), BANS_MAX as usize);
    }
}
