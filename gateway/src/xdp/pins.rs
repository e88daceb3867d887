//! What outlives the process: links and maps pinned in a folder of a bpffs, for `on_exit = "keep"`.
//!
//! Links are `link-IFINDEX`: names there may have no dots, as interfaces do. Maps are in a folder named
//! after their layout, so that a gateway with other maps never reads them wrongly: it begins with new
//! ones and removes those.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use gateway_ebpf::abi;
use ipnet::IpNet;
use rustix::fs::{FlockOperation, flock, statfs};

use super::{Ban, Error, hook, inherited};

/// The maps that are pinned: what is known of sources. What belongs to one process is not among them:
/// its ports and classes, its counters, and the connections it has open.
pub(super) const MAPS: [&str; 5] = [abi::SETTINGS, abi::LIMITS, abi::LIST4, abi::LIST6, abi::BANS];

const LINK_PREFIX: &str = "link-";
const MAPS_PREFIX: &str = "maps-";
/// linux/magic.h
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The folder of one gateway, which nobody else uses as long as this is there: what is in the maps is also in
/// the memory of who writes them.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    maps: PathBuf,
    _lock: File,
}

impl Pins {
    /// Makes the folder where it is not there. `layout` says what the maps look like beside
    /// [`abi::LAYOUT`].
    pub fn new(root: &Path, layout: &str) -> Result<Self, Error> {
        let failed = |error| Error::pin(root, error);
        let create = |folder: &Path| DirBuilder::new().recursive(true).mode(0o700).create(folder);
        // Before a folder is made where it is of no use.
        let there = root.ancestors().find(|folder| folder.exists()).unwrap_or(root);
        let kind = statfs(there).map_err(|error| failed(error.into()))?.f_type;
        if kind as i64 & 0xffff_ffff != BPF_FS_MAGIC {
            let why = "it is in no bpffs: `mount -t bpf bpf /sys/fs/bpf` makes one";
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        create(root).map_err(failed)?;
        let lock = lock(root).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let why = "another gateway does; end it first, or name another folder (xdp.pin)";
                failed(io::Error::new(io::ErrorKind::WouldBlock, why))
            }
            _ => failed(error),
        })?;
        let maps = root.join(format!("{MAPS_PREFIX}{:08x}-{layout}", abi::LAYOUT));
        create(&maps).map_err(failed)?;
        Ok(Self { root: root.to_owned(), maps, _lock: lock })
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    pub fn link(&self, interface: u32) -> PathBuf {
        self.root.join(format!("{LINK_PREFIX}{interface}"))
    }

    /// What the kept maps are keyed with, where there are any.
    pub fn hash_key(&self) -> Option<[u64; 2]> {
        let map = Map::from_map_data(MapData::from_pin(self.map(abi::SETTINGS)).ok()?).ok()?;
        let map = Array::<_, abi::Settings>::try_from(map).ok()?;
        Some(map.get(&0, 0).ok()?.hash_key).filter(|key| *key != [0, 0])
    }

    /// Who is banned by maps of other layouts, for as long as those are there.
    pub fn inherited(&self) -> Vec<(IpNet, Ban)> {
        let others = names(&self.root)
            .unwrap_or_default()
            .into_iter()
            .filter(|name| name.starts_with(MAPS_PREFIX) && self.root.join(name) != self.maps);
        let bans = others.flat_map(|name| {
            let mut numbers = name.rsplit('-').map(|number| number.parse().ok());
            let (v6, v4) = (numbers.next().flatten(), numbers.next().flatten());
            let bans = v4.zip(v6).map(|prefixes| inherited::bans(&self.root.join(&name), prefixes));
            bans.transpose().map(Option::unwrap_or_default).unwrap_or_else(|error| {
                let folder = self.root.display();
                tracing::warn!("xdp: bans of another gateway end, as it kept them otherwise ({folder}/{name}: {error})");
                Vec::new()
            })
        });
        bans.collect()
    }

    /// Leaves other interfaces than these, which are no longer configured, and removes maps of other layouts,
    /// which no program of ours reads any more.
    pub fn remove_others(&self, interfaces: &[u32]) {
        let used: Vec<_> = interfaces.iter().map(|interface| self.link(*interface)).collect();
        let removed = names(&self.root).and_then(|names| {
            names.into_iter().try_for_each(|name| {
                let path = self.root.join(&name);
                if name.starts_with(MAPS_PREFIX) && path != self.maps {
                    return fs::remove_dir_all(path);
                }
                if name.starts_with(LINK_PREFIX) && !used.contains(&path) {
                    tracing::info!("xdp: detached from what is no longer configured ({name})");
                    return fs::remove_file(path);
                }
                Ok(())
            })
        });
        if let Err(error) = removed {
            tracing::warn!("xdp: {}: {error}", self.root.display());
        }
    }
}

/// Removes everything that a gateway has left in a folder; how many interfaces are free now.
///
/// # Errors
/// When there is no such folder, it cannot be changed, or a gateway runs that keeps its own there.
pub fn detach(root: &Path) -> io::Result<usize> {
    let _lock = lock(root).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let why = "a gateway that runs keeps it: end that first";
            io::Error::new(io::ErrorKind::WouldBlock, why)
        }
        _ => error,
    })?;
    let mut links = 0;
    for name in names(root)? {
        let path = root.join(&name);
        if name.starts_with(LINK_PREFIX) {
            fs::remove_file(path)?;
            links += 1;
        } else if name.starts_with(MAPS_PREFIX) {
            fs::remove_dir_all(path)?;
        }
    }
    fs::remove_dir(root)?;
    Ok(links)
}

/// The interfaces that a gateway has left its program on that no longer runs, as far as a folder tells:
/// nothing changes what is enforced there. None where there is no such folder, or one runs.
pub fn left_on(root: &Path) -> Vec<String> {
    let Ok(_lock) = lock(root) else { return Vec::new() };
    let indices = names(root).unwrap_or_default().into_iter().filter_map(|name| {
        let index: u32 = name.strip_prefix(LINK_PREFIX)?.parse().ok()?;
        // What is pinned for one that is gone drops nothing.
        hook::name_of(index)
    });
    indices.collect()
}

/// Locks a folder for as long as what this returns is there; [`io::ErrorKind::WouldBlock`] where somebody else has.
fn lock(root: &Path) -> io::Result<File> {
    let folder = File::open(root)?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    folder.read_dir()?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
