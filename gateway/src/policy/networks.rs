//! Many networks, of which some end to count.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

const NEVER: u64 = 0;
const ALWAYS: u64 = u64::MAX;

/// From which address on who is in one of them, and until which Unix time: sorted, so that looking up an address
/// takes a few steps however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Networks(Vec<(IpAddr, u64)>);

impl Networks {
    /// Of networks, and the Unix times at which they end to count, where they do.
    pub fn new(mut networks: Vec<(IpNet, Option<u64>)>) -> Self {
        networks.sort_by_key(|(network, _)| (network.network(), network.prefix_len()));
        let mut starts = Vec::new();
        // Those that the address is in which has been come to, each within the one before: their last addresses,
        // and until when one of them counts.
        let mut around: Vec<(IpAddr, u64)> = Vec::new();
        for next in networks.into_iter().map(Some).chain([None]) {
            let start = next.map(|(network, _)| network.network());
            let is_over = |(last, _): &mut (IpAddr, u64)| start.is_none_or(|start| *last < start);
            while let Some((last, _)) = around.pop_if(is_over) {
                let until = around.last().map_or(NEVER, |(_, until)| *until);
                starts.extend(behind(last).map(|address| (address, until)));
            }
            let Some((network, until)) = next else { break };
            let wider = around.last().map_or(NEVER, |(_, until)| *until);
            let until = until.unwrap_or(ALWAYS).max(wider);
            starts.push((network.network(), until));
            around.push((network.broadcast(), until));
        }
        Self(starts)
    }

    /// Whether an address is in one that counts now.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self.until(address) {
            NEVER => false,
            ALWAYS => true,
            until => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                now.as_secs() < until
            }
        }
    }

    fn until(&self, address: IpAddr) -> u64 {
        let address = address.to_canonical();
        let behind = self.0.partition_point(|(start, _)| *start <= address);
        let before = behind.checked_sub(1).and_then(|index| self.0.get(index));
        before.map_or(NEVER, |(_, until)| *until)
    }
}

/// The address behind another; behind all of IPv4 begins IPv6.
fn behind(last: IpAddr) -> Option<IpAddr> {
    match last {
        IpAddr::V4(last) => Some(match last.to_bits().checked_add(1) {
            Some(bits) => IpAddr::V4(bits.into()),
            None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }),
        IpAddr::V6(last) => last.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(all: &[(&str, Option<u64>)]) -> Networks {
        Networks::new(all.iter().map(|(text, until)| (text.parse().unwrap(), *until)).collect())
    }

    #[test]
    fn the_longest_lasting_of_those_around_counts() {
        let all = [
            ("10.1.0.0/16", Some(20)),
            ("10.0.0.0/8", Some(10)),
            ("10.1.2.0/24", Some(5)),
            ("10.1.2.3/32", None),
            ("10.255.255.255/32", Some(30)),
            ("11.0.0.0/32", Some(40)),
            ("255.255.255.0/24", Some(50)),
            ("ffff::/16", Some(60)),
            ("ffff::/16", Some(50)),
        ];
        let mut reversed = all;
        reversed.reverse();
        for networks in [networks(&all), networks(&reversed)] {
            for (address, until) in [
                ("9.255.255.255", NEVER),
                ("10.0.0.0", 10),
                ("10.1.0.0", 20),
                ("10.1.2.2", 20),
                ("10.1.2.3", ALWAYS),
                ("::ffff:10.1.2.3", ALWAYS),
                ("10.1.2.4", 20),
                ("10.1.255.255", 20),
                ("10.2.0.0", 10),
                ("10.255.255.255", 30),
                ("11.0.0.0", 40),
                ("11.0.0.1", NEVER),
                ("255.255.255.255", 50),
                ("::", NEVER),
                ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 60),
            ] {
                assert_eq!(networks.until(address.parse().unwrap()), until, "{address}");
            }
        }
    }

    #[test]
    fn what_has_ended_counts_no_more() {
        let address = "10.0.0.1".parse().unwrap();
        for (until, counts) in [(None, true), (Some(1), false), (Some(1 << 40), true)] {
            assert_eq!(networks(&[("10.0.0.0/8", until)]).contains(address), counts);
        }
        assert!(!Networks::default().contains(address));
        let everybody = networks(&[("0.0.0.0/0", None)]);
        assert!(everybody.contains(address) && !everybody.contains("::1".parse().unwrap()));
    }
}
