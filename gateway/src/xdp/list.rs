//! The list as the kernel has it: a trie for each family, with two generations of networks in it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use gateway_ebpf::abi::{Entry, Key4, Key6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Bits of a key before the address.
const GENERATION_BITS: u32 = 32;

pub(super) struct List {
    pub v4: LpmTrie<MapData, Key4, Entry>,
    pub v6: LpmTrie<MapData, Key6, Entry>,
}

impl List {
    /// Puts a network into a generation.
    pub fn insert(&mut self, generation: u8, at: IpNet, entry: Entry) -> Result<(), MapError> {
        match at {
            IpNet::V4(network) => self.v4.insert(&key4(generation, network), entry, 0),
            IpNet::V6(network) => self.v6.insert(&key6(generation, network), entry, 0),
        }
    }

    /// Removes a generation; the hits of the other one.
    pub fn clear(&mut self, generation: u8) -> Result<HashMap<IpNet, u64>, MapError> {
        let mut others = HashMap::new();
        for (of, network, entry) in self.read()? {
            if of != generation {
                others.insert(network, entry.hits);
                continue;
            }
            match network {
                IpNet::V4(network) => self.v4.remove(&key4(generation, network))?,
                IpNet::V6(network) => self.v6.remove(&key6(generation, network))?,
            }
        }
        Ok(others)
    }

    /// Everything: generation, network, entry.
    pub fn read(&self) -> Result<Vec<(u8, IpNet, Entry)>, MapError> {
        let v4 = self.v4.iter().map(|pair| {
            let (key, entry) = pair?;
            let Key4 { generation, address } = key.data();
            let length = key.prefix_len().saturating_sub(GENERATION_BITS) as u8;
            let network = Ipv4Net::new(Ipv4Addr::from(address), length);
            Ok((generation, network.map(IpNet::V4), entry))
        });
        let v6 = self.v6.iter().map(|pair| {
            let (key, entry) = pair?;
            let Key6 { generation, address } = key.data();
            let length = key.prefix_len().saturating_sub(GENERATION_BITS) as u8;
            let network = Ipv6Net::new(Ipv6Addr::from(address), length);
            Ok((generation, network.map(IpNet::V6), entry))
        });
        // A prefix is never too long: nobody else writes the maps.
        let whole = |pair: Result<([u8; 4], Result<IpNet, _>, Entry), MapError>| match pair {
            Ok(([generation, ..], Ok(network), entry)) => Some(Ok((generation, network, entry))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        v4.chain(v6).filter_map(whole).collect()
    }
}

fn key4(generation: u8, network: Ipv4Net) -> Key<Key4> {
    let generation = [generation, 0, 0, 0];
    let key = Key4 { generation, address: network.network().octets() };
    Key::new(GENERATION_BITS + u32::from(network.prefix_len()), key)
}

fn key6(generation: u8, network: Ipv6Net) -> Key<Key6> {
    let generation = [generation, 0, 0, 0];
    let key = Key6 { generation, address: network.network().octets() };
    Key::new(GENERATION_BITS + u32::from(network.prefix_len()), key)
}
