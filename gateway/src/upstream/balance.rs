//! Which endpoint is asked next. Pure: no sockets, and no clock but the one passed in, whose unit is a
//! millisecond.

use std::cell::Cell;
use std::rc::Rc;

use super::load::Load;
use crate::exchange::Affinity;
use crate::exchange::affinity::point;

/// Points each endpoint of average weight has on the ring: enough for shares within some 10 %.
const POINTS: usize = 160;

/// How much above its share an endpoint may be loaded before the next on the ring is asked, in
/// hundredths (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads).
const BOUND: u64 = 125;

/// How much better the second of two endpoints must be to be preferred. What is about as good shares
/// the requests by weight.
const BETTER: f64 = 0.8;

/// How endpoints are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The better of two drawn by weight: fewer requests in flight, faster answers ("power of two
    /// choices", peak EWMA).
    #[default]
    P2c,
    /// Each in turn, by weight.
    RoundRobin,
    /// The one with the fewest requests in flight for its weight.
    LeastConnections,
    /// The one that requests which belong together always have, unless it is loaded above the others.
    ConsistentHash(Affinity),
}

impl Balance {
    /// As a configuration has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::P2c => "p2c",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::ConsistentHash(_) => "consistent_hash",
        }
    }

    /// Which value of requests counts, if any.
    pub fn affinity(&self) -> Option<&Affinity> {
        match self {
            Self::ConsistentHash(affinity) => Some(affinity),
            _ => None,
        }
    }
}

/// What a choice comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Choice {
    /// The one at this position.
    One(usize),
    /// There are some, but they have all the requests they may have.
    Full,
    /// There is none.
    Nobody,
}

/// Chooses endpoints for one worker.
#[derive(Debug)]
pub struct Chooser {
    balance: Balance,
    /// Points and whose they are, in order.
    ring: Vec<(u64, usize)>,
    random: Cell<u64>,
    next: Cell<usize>,
}

impl Chooser {
    /// Begins at a place of its own for each `seed`: workers begin at different endpoints, so that few
    /// requests on many workers do not all go to the same. Endpoints lie on the ring by their names.
    pub fn new(balance: Balance, endpoints: &[(String, u32)], seed: u64) -> Self {
        let mut ring = Vec::new();
        if let Balance::ConsistentHash(_) = balance {
            let total: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
            for (index, (name, weight)) in endpoints.iter().enumerate() {
                let share = (POINTS * endpoints.len()) as u64 * u64::from(*weight);
                let points = (share / total.max(1)).max(1);
                ring.extend(
                    (0..points).map(|at| (point(format!("{name} {at}").as_bytes()), index)),
                );
            }
            ring.sort_unstable();
        }
        let random = Cell::new(point(&seed.to_le_bytes()) | 1);
        Self { balance, ring, random, next: Cell::new(seed as usize) }
    }

    /// The one to ask, of those not `tried` that are up. Those that are no backups come first, and those
    /// that are not ejected; when there are no others, ejected ones are better than nobody. While any of
    /// the better ones has as many requests as it may have, the worse are not asked in its place.
    pub fn choose(
        &self,
        loads: &[Rc<Load>],
        tried: &[usize],
        now: u64,
        point: Option<u64>,
    ) -> Choice {
        for (backup, ejected) in [(false, false), (true, false), (false, true), (true, true)] {
            let is_candidate = |index: usize| {
                loads.get(index).is_some_and(|load| {
                    load.is_up() && load.is_backup() == backup && (ejected || !load.is_ejected(now))
                }) && !tried.contains(&index)
            };
            let has_room = |index: usize| {
                is_candidate(index) && loads.get(index).is_some_and(|l| !l.is_full())
            };
            if let Some(index) = self.choose_among(loads, has_room, now, point) {
                return Choice::One(index);
            }
            if (0..loads.len()).any(is_candidate) {
                return Choice::Full;
            }
        }
        Choice::Nobody
    }

    fn choose_among(
        &self,
        loads: &[Rc<Load>],
        fits: impl Fn(usize) -> bool,
        now: u64,
        point: Option<u64>,
    ) -> Option<usize> {
        match &self.balance {
            Balance::P2c => self.better_of_two(loads, fits, now),
            Balance::RoundRobin => round_robin(loads, fits, now, self.next.replace(0)),
            Balance::LeastConnections => self.least_loaded(loads, fits, now),
            Balance::ConsistentHash(_) => {
                self.on_ring(loads, fits, point.unwrap_or_else(|| self.random()))
            }
        }
    }

    fn better_of_two(
        &self,
        loads: &[Rc<Load>],
        fits: impl Fn(usize) -> bool,
        now: u64,
    ) -> Option<usize> {
        let first = self.draw(loads, &fits, now)?;
        let Some(second) = self.draw(loads, |index| index != first && fits(index), now) else {
            return Some(first);
        };
        let cost = |index: usize| loads.get(index).map_or(f64::MAX, |load| load.cost(now));
        Some(if cost(second) < cost(first) * BETTER { second } else { first })
    }

    /// One at random, by weight.
    fn draw(&self, loads: &[Rc<Load>], fits: impl Fn(usize) -> bool, now: u64) -> Option<usize> {
        let weights = || {
            let fitting = loads.iter().enumerate().filter(|(index, _)| fits(*index));
            fitting.map(|(index, load)| (index, load.share(now)))
        };
        let total: u64 = weights().map(|(_, weight)| weight).sum();
        let mut left = (u128::from(self.random()) * u128::from(total)) >> 64;
        let drawn = weights().find(|(_, weight)| {
            let within = left < u128::from(*weight);
            left = left.saturating_sub(u128::from(*weight));
            within
        });
        drawn.map(|(index, _)| index)
    }

    /// Those that are loaded alike, such as all that are idle, take turns by weight.
    fn least_loaded(
        &self,
        loads: &[Rc<Load>],
        fits: impl Fn(usize) -> bool,
        now: u64,
    ) -> Option<usize> {
        let load = |index: usize| {
            let load = loads.get(index)?;
            Some(u64::from(load.in_flight()) * 100_000 / load.share(now).max(1))
        };
        let least = (0..loads.len()).filter(|index| fits(*index)).map(load).min()?;
        let alike = |index: usize| fits(index) && load(index) == least;
        round_robin(loads, alike, now, self.next.replace(0))
    }

    fn on_ring(
        &self,
        loads: &[Rc<Load>],
        fits: impl Fn(usize) -> bool,
        point: u64,
    ) -> Option<usize> {
        let fitting = || loads.iter().enumerate().filter(|(index, _)| fits(*index));
        let in_flight: u64 = fitting().map(|(_, load)| u64::from(load.in_flight())).sum();
        let weights: u64 = fitting().map(|(_, load)| u64::from(load.weight())).sum();
        let start = self.ring.partition_point(|(at, _)| *at < point);
        let around = self.ring.iter().cycle().skip(start).take(self.ring.len());
        let mut own = around.map(|(_, index)| *index).filter(|index| fits(*index)).peekable();
        let first = own.peek().copied();
        let has_room = |index: &usize| {
            loads.get(*index).is_some_and(|load| {
                let share = (in_flight + 1) * u64::from(load.weight()) * BOUND;
                u64::from(load.in_flight()) < share.div_ceil(weights.max(1) * 100)
            })
        };
        own.find(has_room).or(first)
    }

    /// xorshift64.
    fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        // Its high bits are better than its low ones, and it is never zero.
        state.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// Smooth weighted round robin, as nginx has it: no endpoint gets its share in one piece. `skip` are
/// turns that are left out once.
fn round_robin(
    loads: &[Rc<Load>],
    fits: impl Fn(usize) -> bool,
    now: u64,
    skip: usize,
) -> Option<usize> {
    let turn = || {
        let mut total = 0;
        let mut best: Option<(usize, &Rc<Load>)> = None;
        for (index, load) in loads.iter().enumerate().filter(|(index, _)| fits(*index)) {
            let weight = load.share(now) as i64;
            total += weight;
            load.credit.set(load.credit.get() + weight);
            if best.is_none_or(|(_, best)| load.credit.get() > best.credit.get()) {
                best = Some((index, load));
            }
        }
        let (index, load) = best?;
        load.credit.set(load.credit.get() - total);
        Some(index)
    };
    for _ in 0..skip % loads.len().max(1) {
        turn();
    }
    turn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::health::Health;
    use crate::upstream::load::Terms;

    fn loads(weights: &[u32]) -> Vec<Rc<Load>> {
        weights
            .iter()
            .map(|weight| Rc::new(Load::new(Terms { weight: *weight, ..Terms::default() })))
            .collect()
    }

    fn chooser(balance: Balance, loads: &[Rc<Load>]) -> Chooser {
        let named = loads.iter().enumerate();
        let endpoints: Vec<_> =
            named.map(|(index, load)| (format!("10.0.0.{index}:80"), load.weight())).collect();
        Chooser::new(balance, &endpoints, 0)
    }

    fn chosen(chooser: &Chooser, loads: &[Rc<Load>], point: Option<u64>) -> usize {
        let Choice::One(index) = chooser.choose(loads, &[], 0, point) else { panic!("nobody") };
        index
    }

    fn counts(chooser: &Chooser, loads: &[Rc<Load>], requests: usize) -> Vec<usize> {
        let mut counts = vec![0; loads.len()];
        for _ in 0..requests {
            counts[chosen(chooser, loads, None)] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_smooth_and_keeps_weights() {
        let loads = loads(&[5, 1, 1]);
        let chooser = chooser(Balance::RoundRobin, &loads);
        let turns: Vec<_> = (0..7).map(|_| chosen(&chooser, &loads, None)).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn workers_begin_at_different_endpoints() {
        let loads = loads(&[1, 1, 1]);
        let endpoints: Vec<_> = (0..3).map(|index| (index.to_string(), 1)).collect();
        let first = |seed| {
            loads.iter().for_each(|load| load.credit.set(0));
            chosen(&Chooser::new(Balance::RoundRobin, &endpoints, seed), &loads, None)
        };
        assert_eq!([first(0), first(1), first(2)], [0, 1, 2]);
    }

    #[test]
    fn two_choices_keep_weights_among_equals() {
        let loads = loads(&[3, 1]);
        let counts = counts(&chooser(Balance::P2c, &loads), &loads, 10_000);
        assert!((7250..7750).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn two_choices_avoid_the_slow_and_the_busy() {
        let loads = loads(&[1, 1, 1]);
        let chooser = chooser(Balance::P2c, &loads);
        for (load, latency) in loads.iter().zip([1000, 1000, 10_000]) {
            load.begin();
            load.end_well(latency, 0);
        }
        let slow = counts(&chooser, &loads, 3000);
        assert_eq!(slow[2], 0, "{slow:?}");
        // Until it has been forgotten how slow it was.
        let later = chooser.choose(&loads, &[0, 1], 0, None);
        assert_eq!(later, Choice::One(2));
        for _ in 0..20 {
            loads[0].begin();
        }
        let busy = counts(&chooser, &loads, 3000);
        assert_eq!(busy[0], 0, "{busy:?}");
    }

    #[test]
    fn least_connections_takes_turns_among_equals() {
        let idle = loads(&[1, 3]);
        assert_eq!(counts(&chooser(Balance::LeastConnections, &idle), &idle, 40), [10, 30]);
        let loads = loads(&[1, 1, 2]);
        let chooser = chooser(Balance::LeastConnections, &loads);
        let mut order = Vec::new();
        for _ in 0..4 {
            let index = chosen(&chooser, &loads, None);
            loads[index].begin();
            order.push(index);
        }
        assert_eq!(order, [2, 0, 1, 2]);
    }

    #[test]
    fn a_ring_moves_few_and_keeps_weights() {
        let points: Vec<u64> = (0..10_000u32).map(|number| point(&number.to_le_bytes())).collect();
        let at = |weights: &[u32]| {
            let loads = loads(weights);
            let chooser = chooser(Balance::ConsistentHash(Affinity::Client), &loads);
            points.iter().map(|at| chosen(&chooser, &loads, Some(*at))).collect::<Vec<_>>()
        };
        let (ten, eleven) = (at(&[1; 10]), at(&[1; 11]));
        let moved = ten.iter().zip(&eleven).filter(|(before, after)| before != after).count();
        assert!((600..1300).contains(&moved), "{moved} of 10000, 909 expected");
        assert!(ten.iter().zip(&eleven).all(|(before, after)| before == after || *after == 10));
        let weighted = at(&[1, 3]);
        let heavy = weighted.iter().filter(|index| **index == 1).count();
        assert!((6700..8300).contains(&heavy), "{heavy}");
    }

    #[test]
    fn a_ring_does_not_overload() {
        let loads = loads(&[1; 4]);
        let chooser = chooser(Balance::ConsistentHash(Affinity::Client), &loads);
        for _ in 0..100 {
            let index = chosen(&chooser, &loads, Some(7));
            loads[index].begin();
        }
        let most = loads.iter().map(|load| load.in_flight()).max().unwrap();
        assert!((26..=32).contains(&most), "{most}");
    }

    #[test]
    fn backups_and_ejected_ones_come_last() {
        let mut loads = loads(&[1, 1]);
        loads.push(Rc::new(Load::new(Terms { backup: true, ..Terms::default() })));
        for balance in [Balance::P2c, Balance::RoundRobin, Balance::LeastConnections] {
            let chooser = chooser(balance, &loads);
            loads[0].eject(100);
            assert_eq!(chooser.choose(&loads, &[], 50, None), Choice::One(1));
            assert_eq!(chooser.choose(&loads, &[1], 50, None), Choice::One(2));
            assert_eq!(chooser.choose(&loads, &[1, 2], 50, None), Choice::One(0));
            assert_eq!(chooser.choose(&loads, &[0, 1, 2], 50, None), Choice::Nobody);
            assert_eq!(chooser.choose(&loads, &[1], 100, None), Choice::One(0));
        }
    }

    #[test]
    fn who_is_full_is_waited_for_and_who_is_down_is_not_asked() {
        let mut loads: Vec<_> = [Terms { requests_max: 1, ..Terms::default() }, Terms::default()]
            .map(|terms| Rc::new(Load::new(terms)))
            .into();
        loads.push(Rc::new(Load::new(Terms { backup: true, ..Terms::default() })));
        for balance in [Balance::P2c, Balance::RoundRobin, Balance::LeastConnections] {
            let chooser = chooser(balance, &loads);
            assert_eq!(chooser.choose(&loads, &[1], 0, None), Choice::One(0));
            loads[0].begin();
            assert_eq!(chooser.choose(&loads, &[1], 0, None), Choice::Full, "no backup instead");
            assert_eq!(chosen(&chooser, &loads, None), 1);
            loads[0].end();
        }
        let health = Health::default();
        let down = [Rc::new(Load::new(Terms { health: health.clone(), ..Terms::default() }))];
        health.set_down();
        let chooser = chooser(Balance::P2c, &down);
        assert_eq!(chooser.choose(&down, &[], 0, None), Choice::Nobody);
    }
}
