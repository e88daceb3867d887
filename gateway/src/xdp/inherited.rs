//! Bans of maps with another layout, for those that take their place: what size the limiter's table has, or what
//! makes a source, says nothing about who is banned. Only its size tells whether a ban is what one is here: whoever
//! changes what is in [`abi::Ban`] and not how large it is gives [`abi::BANS`] another name.

use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use gateway_ebpf::abi;
use gateway_ebpf::verdict::Treatment;
use ipnet::IpNet;

use super::Ban;
use super::list::List;
use super::maps::{ban_of, unix_of_monotonic};
use crate::admission::{Source, address_of};

/// Who is banned by the maps in `folder`, those included whose bans have ended, whose sources are so many bits of
/// an IPv4 and of an IPv6 address. Those that end last come last.
///
/// # Errors
/// When what is in the maps has another size.
pub(super) fn bans(folder: &Path, prefixes: (u8, u8)) -> Result<Vec<(IpNet, Ban)>, MapError> {
    let bans = HashMap::<MapData, Source, abi::Ban>::try_from(map(folder, abi::BANS)?)?;
    let settings = Array::<MapData, abi::Settings>::try_from(map(folder, abi::SETTINGS)?)?;
    let generation = settings.get(&0, 0)?.generation;
    let list =
        List { v4: map(folder, abi::LIST4)?.try_into()?, v6: map(folder, abi::LIST6)?.try_into()? };
    let mut all = Vec::new();
    for ban in bans.iter() {
        let (source, ban) = ban?;
        let address = address_of(source);
        let length = if address.is_ipv4() { prefixes.0 } else { prefixes.1 };
        // A prefix that is too long has not been made by a gateway.
        all.extend(IpNet::new(address, length).ok().map(|network| (network, ban_of(ban))));
    }
    for (of, network, entry) in list.read()? {
        if u64::from(of) == generation && entry.treatment == Treatment::Ban.code() {
            let until = unix_of_monotonic(entry.until);
            all.push((network, Ban { until, level: 0, reason: 0, hits: 0, in_kernel: true }));
        }
    }
    all.sort_by_key(|(_, ban)| ban.until);
    Ok(all)
}

fn map(folder: &Path, name: &str) -> Result<Map, MapError> {
    Map::from_map_data(MapData::from_pin(folder.join(name))?)
}
