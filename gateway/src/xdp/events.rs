//! What the program tells of packets it refuses, or would: a sample, in a ring buffer, which becomes lines of
//! the log. Once a second it is read, and what there are too many lines for is told in one.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use gateway_ebpf::abi;
use gateway_ebpf::verdict::{Reason, Verdict};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::Error;
use crate::admission::address_of;

/// Between two looks into the ring buffer, while something is in it.
const PAUSE: Duration = Duration::from_secs(1);

/// The events of one loaded program.
pub struct Events {
    ring: RingBuf<MapData>,
    lines_max: usize,
    /// Interfaces by their index.
    interfaces: HashMap<u32, String>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// What one line tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Subject {
    source: IpAddr,
    interface: u32,
    port: u16,
    slot: u32,
}

impl Events {
    /// Takes the ring buffer out of the object. There will be at most `rate` lines a second.
    pub(super) fn take(
        ebpf: &mut Ebpf,
        rate: u32,
        names: Vec<String>,
        indices: Vec<u32>,
    ) -> Result<Self, Error> {
        let failed = |error| Error::io("open the ring buffer", error);
        let map = ebpf.take_map(abi::EVENTS).ok_or(aya::maps::MapError::KeyNotFound);
        let ring = map.and_then(RingBuf::try_from).map_err(failed)?;
        let interfaces = indices.into_iter().zip(names).collect();
        Ok(Self { ring, lines_max: rate as usize, interfaces })
    }

    /// Logs what there is for as long as it is polled, on a tokio runtime. `is_flooded` is asked after
    /// a flood has begun.
    ///
    /// # Errors
    /// When the runtime cannot wait for the ring buffer; then there are no more lines.
    pub async fn forward(self, is_flooded: impl Fn() -> bool) -> io::Result<()> {
        let Self { ring, lines_max, interfaces } = self;
        #[expect(
            deprecated,
            reason = "the ring buffer owns its descriptor; the successor is unsafe"
        )]
        let mut ring = AsyncFd::with_interest(ring, Interest::READABLE)?;
        let mut flooded = false;
        loop {
            if !flooded {
                let mut ready = ring.readable_mut().await?;
                ready.clear_ready();
            }
            let told = drain(ring.get_mut());
            let begins = told.keys().any(|subject| reason(subject.slot) == Some(Reason::Flood));
            log(&told, lines_max, &interfaces);
            match (flooded, is_flooded()) {
                (false, true) if begins => {
                    flooded = true;
                    tracing::warn!(
                        "xdp: a flood of new sources: connections are answered by SYN cookies, or \
                         would be if that were enforced"
                    );
                }
                (true, false) => {
                    flooded = false;
                    tracing::warn!("xdp: the flood is over");
                }
                _ => {}
            }
            sleep(PAUSE).await;
        }
    }
}

/// All that is in the ring buffer: how many packets each subject stands for.
fn drain(ring: &mut RingBuf<MapData>) -> HashMap<Subject, u64> {
    let mut told = HashMap::new();
    while let Some(item) = ring.next() {
        if let Some((subject, packets)) = read(&item) {
            *told.entry(subject).or_default() += packets;
        }
    }
    told
}

/// An [`abi::Event`], as the program has written it.
fn read(bytes: &[u8]) -> Option<(Subject, u64)> {
    let word = |index: usize| -> Option<u64> {
        let bytes = bytes.get(8 * index..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    };
    let half = |index: usize| -> Option<u32> {
        let bytes = bytes.get(4 * index..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let source = address_of([word(0)?, word(1)?]);
    let (interface, slot, port) = (half(6)?, half(7)?, half(8)? as u16);
    Some((Subject { source, interface, port, slot }, word(2)?))
}

fn verdict(slot: u32) -> Option<Verdict> {
    Verdict::all().find(|verdict| verdict.slot() == slot)
}

fn reason(slot: u32) -> Option<Reason> {
    verdict(slot).map(|verdict| verdict.reason)
}

/// The most first.
fn log(told: &HashMap<Subject, u64>, lines_max: usize, interfaces: &HashMap<u32, String>) {
    let is_told = |subject: &Subject| reason(subject.slot).is_some_and(|r| r != Reason::Flood);
    let mut lines: Vec<_> = told.iter().filter(|(subject, _)| is_told(subject)).collect();
    lines.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
    let (told, rest) = lines.split_at(lines.len().min(lines_max));
    for (Subject { source, interface, port, slot }, packets) in told {
        let Some(Verdict { action, reason }) = verdict(*slot) else { continue };
        tracing::info!(
            %source,
            port,
            interface = interfaces.get(interface).map_or("?", String::as_str),
            reason = reason.label(),
            packets,
            "xdp: {}",
            action.label()
        );
    }
    if !rest.is_empty() {
        let packets: u64 = rest.iter().map(|(_, packets)| **packets).sum();
        tracing::info!(packets, "xdp: {} more sources", rest.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_ebpf::verdict::Action;

    #[test]
    fn an_event_is_read_as_it_is_written() {
        let slot = Verdict { action: Action::Reset, reason: Reason::OverLimit }.slot();
        let mut bytes = Vec::new();
        for word in gateway_ebpf::packet::Address::V4([192, 0, 2, 1]).words() {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(17_u64.to_ne_bytes());
        for half in [3, slot, 443, 0] {
            bytes.extend(half.to_ne_bytes());
        }
        assert_eq!(bytes.len(), size_of::<abi::Event>());
        let source = IpAddr::from([192, 0, 2, 1]);
        let subject = Subject { source, interface: 3, port: 443, slot };
        assert_eq!(read(&bytes), Some((subject, 17)));
        assert_eq!(reason(slot), Some(Reason::OverLimit));
        assert_eq!(read(&bytes[..20]), None);
    }
}
