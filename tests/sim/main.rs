//! Balancing, played through without sockets or clocks: the same seed gives the same run.
#![expect(clippy::indexing_slicing, reason = "a test panics to fail")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;

use gateway::upstream::balance::{Balance, Choice, Chooser};
use gateway::upstream::load::{Load, Terms};

const ENDPOINTS: usize = 10;

/// Requests an endpoint serves at once; others wait there.
const AT_ONCE: usize = 4;

/// What a request takes at a fast endpoint on average, microseconds.
const SERVICE_US: f64 = 10_000.0;

const REQUESTS: u64 = 200_000;

/// xorshift64.
struct Random(u64);

impl Random {
    /// 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponentially distributed, at least a microsecond.
    fn time(&mut self, mean: f64) -> u64 {
        (-mean * (1.0 - self.next()).ln()) as u64 + 1
    }
}

#[derive(Default)]
struct Endpoint {
    busy: usize,
    /// When those that wait have come.
    waiting: VecDeque<u64>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    /// At this endpoint, one that came then.
    Ends(usize, u64),
}

/// What all requests took, and those at endpoints that are not slow: the 99th percentiles.
fn play(balance: Balance, slow: usize, times_slower: f64) -> (u64, u64) {
    let named: Vec<_> = (0..ENDPOINTS).map(|index| (index.to_string(), 1)).collect();
    let chooser = Chooser::new(balance, &named, 1);
    let loads: Vec<_> = (0..ENDPOINTS).map(|_| Rc::new(Load::new(Terms::default()))).collect();
    let mut endpoints: Vec<Endpoint> = (0..ENDPOINTS).map(|_| Endpoint::default()).collect();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    // Half of what they could do if none was slow.
    let gap = SERVICE_US / (ENDPOINTS * AT_ONCE) as f64 * 2.0;
    let service = |random: &mut Random, index| {
        random.time(if index == slow { SERVICE_US * times_slower } else { SERVICE_US })
    };
    let mut events = BinaryHeap::from([Reverse((0, Event::Arrives))]);
    let (mut arrived, mut all, mut fast) = (0, Vec::new(), Vec::new());
    while let Some(Reverse((now, event))) = events.pop() {
        match event {
            Event::Arrives => {
                arrived += 1;
                if arrived < REQUESTS {
                    events.push(Reverse((now + random.time(gap), Event::Arrives)));
                }
                let choice = chooser.choose(&loads, &[], now / 1000, None);
                let Choice::One(index) = choice else { unreachable!("all are up") };
                loads[index].begin();
                let endpoint = &mut endpoints[index];
                if endpoint.busy < AT_ONCE {
                    endpoint.busy += 1;
                    let ends = now + service(&mut random, index);
                    events.push(Reverse((ends, Event::Ends(index, now))));
                } else {
                    endpoint.waiting.push_back(now);
                }
            }
            Event::Ends(index, came) => {
                let took = now - came;
                loads[index].end_well(took, now / 1000);
                all.push(took);
                if index != slow {
                    fast.push(took);
                }
                match endpoints[index].waiting.pop_front() {
                    Some(came) => {
                        let ends = now + service(&mut random, index);
                        events.push(Reverse((ends, Event::Ends(index, came))));
                    }
                    None => endpoints[index].busy -= 1,
                }
            }
        }
    }
    (percentile_99(all), percentile_99(fast))
}

fn percentile_99(mut took: Vec<u64>) -> u64 {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[test]
fn one_of_ten_that_is_ten_times_slower() {
    let (all, fast) = play(Balance::P2c, 3, 10.0);
    assert!(all <= 2 * fast, "p2c: {all} of all, {fast} of the fast ones");
    let (all, fast) = play(Balance::RoundRobin, 3, 10.0);
    assert!(all > 2 * fast, "round robin: {all} of all, {fast} of the fast ones");
}

#[test]
fn two_choices_are_no_worse_where_all_are_alike() {
    let nobody = ENDPOINTS;
    let (two_choices, _) = play(Balance::P2c, nobody, 1.0);
    let (round_robin, _) = play(Balance::RoundRobin, nobody, 1.0);
    assert!(two_choices * 10 <= round_robin * 11, "{two_choices} and {round_robin}");
}
