//! Finds the longest network an address is in.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Values by network. A look-up tries each length of prefix there is, the longest first.
#[derive(Clone, Debug)]
pub struct Networks<T> {
    v4: Lengths<T>,
    v6: Lengths<T>,
}

/// By length of prefix, the longest first: the networks of that length.
type Lengths<T> = Vec<(u8, HashMap<u128, T>)>;

impl<T> Default for Networks<T> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<T> Networks<T> {
    /// Puts a value at a network, in the place of what was there.
    pub fn insert(&mut self, network: IpNet, value: T) {
        let (bits, lengths) = match network {
            IpNet::V4(_) => (32, &mut self.v4),
            IpNet::V6(_) => (128, &mut self.v6),
        };
        let length = network.prefix_len();
        let position = lengths.partition_point(|(other, _)| *other > length);
        if lengths.get(position).is_none_or(|(other, _)| *other != length) {
            lengths.insert(position, (length, HashMap::new()));
        }
        if let Some((_, networks)) = lengths.get_mut(position) {
            networks.insert(cut(number(network.addr()), bits, length), value);
        }
    }

    /// What was put at the longest network that `address` is in.
    pub fn find(&self, address: IpAddr) -> Option<&T> {
        let address = address.to_canonical();
        self.covering(IpNet::from(address))
    }

    /// What was put at the longest network that all of `network` is in.
    pub fn covering(&self, network: IpNet) -> Option<&T> {
        let (bits, lengths) = match network {
            IpNet::V4(_) => (32, &self.v4),
            IpNet::V6(_) => (128, &self.v6),
        };
        let number = number(network.addr());
        let wider = lengths.iter().filter(|(length, _)| *length <= network.prefix_len());
        wider.into_iter().find_map(|(length, networks)| networks.get(&cut(number, bits, *length)))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first `length` of `bits` bits.
fn cut(number: u128, bits: u8, length: u8) -> u128 {
    number.checked_shr(u32::from(bits - length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_network_wins() {
        let mut networks = Networks::default();
        for (position, network) in [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3/32",
            "2001:db8::/32",
            "2001:db8::1/128",
        ]
        .into_iter()
        .enumerate()
        {
            networks.insert(network.parse().unwrap(), position);
        }
        let find = |address: &str| networks.find(address.parse().unwrap()).copied();
        assert_eq!(find("192.0.2.1"), Some(0));
        assert_eq!(find("10.255.0.1"), Some(1));
        assert_eq!(find("10.1.2.4"), Some(2));
        assert_eq!(find("10.1.2.3"), Some(3));
        assert_eq!(find("::ffff:10.1.2.3"), Some(3));
        assert_eq!(find("2001:db8::2"), Some(4));
        assert_eq!(find("2001:db8::1"), Some(5));
        assert_eq!(find("2001:db9::1"), None);
        let covering = |network: &str| networks.covering(network.parse().unwrap()).copied();
        assert_eq!(covering("10.1.0.0/15"), Some(1));
        assert_eq!(covering("2001::/16"), None);
    }
}
