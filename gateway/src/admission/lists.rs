//! Lists of networks in the configuration or in a file, a line each (`document::listed`), and what is made of
//! them.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use gateway_ebpf::abi::{LIST_IMPLIED_MAX, LIST_MAX};
use gateway_ebpf::flood;
use ipnet::IpNet;

use super::{Class, Networks, Treatment};
use crate::document::listed::{COMMENTS, Listed};

/// Networks that may be written, all lists together.
pub const WRITTEN_MAX: usize = (LIST_MAX - LIST_IMPLIED_MAX) as usize;

/// Bytes of a file: more than enough for as many networks as there may be.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// One network and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The network.
    pub network: IpNet,
    /// What becomes of who is in it.
    pub treatment: Treatment,
    /// The Unix time at which it ends to count, if it does.
    pub until: Option<u64>,
    /// What it is for.
    pub comment: String,
    /// Where it is written.
    pub origin: String,
}

/// What the configuration says of sources.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Bits of an IPv4 address that make a source.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make a source.
    pub ipv6_prefix: u8,
    /// Everybody's, then those with a name; listeners and lists refer to them by position.
    pub classes: Vec<Class>,
    /// Keep out who is on a deny list; otherwise only count them.
    pub enforce_deny: bool,
    /// New sources a second, on one CPU, above which the kernel program answers by SYN cookies; see
    /// [`gateway_ebpf::flood`].
    pub flood: u64,
    /// Do so; otherwise only count what would be answered.
    pub enforce_cookies: bool,
    /// Networks, in the order written; nothing is resolved yet, see [`live`].
    pub list: Vec<Entry>,
}

impl Default for Settings {
    /// No limits and no lists.
    fn default() -> Self {
        let class = Class { connections_max: 0, ..Class::default() };
        Self {
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            classes: vec![class],
            enforce_deny: false,
            flood: flood::NEVER,
            enforce_cookies: false,
            list: Vec::new(),
        }
    }
}

impl Entry {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str, treatment: Treatment, origin: &str) -> Result<Self, String> {
        let Listed { network, until, comment } = Listed::parse(line)?;
        let (comment, origin) = (comment.to_owned(), origin.to_owned());
        Ok(Self { network, treatment, until, comment, origin })
    }
}

/// Reads a file, a network a line; empty lines and comments may stand between.
///
/// # Errors
/// What is wrong, and in which line.
pub fn read_file(path: &Path, treatment: Treatment) -> Result<Vec<Entry>, String> {
    let unreadable = |error: std::io::Error| format!("{path:?}: {error}");
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(format!("{path:?}: larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let name = path.display();
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with(COMMENTS)
    });
    let entries = lines.map(|(index, line)| {
        let origin = format!("{name}:{}", index + 1);
        Entry::parse(line, treatment, &origin).map_err(|message| format!("{origin}: {message}"))
    });
    let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    match entries.len() > WRITTEN_MAX {
        true => Err(format!("{path:?}: more than {WRITTEN_MAX} networks")),
        false => Ok(entries),
    }
}

/// The entries that count at a Unix time, one for each network, so that the longest network an address
/// is in decides and the allow lists win always: what lies within an allowed network is left out.
pub fn live(entries: &[Entry], now: u64) -> Vec<Entry> {
    let alive = entries.iter().filter(|entry| entry.until.is_none_or(|until| until > now));
    let mut allowed = Networks::default();
    let mut by_network: HashMap<IpNet, &Entry> = HashMap::new();
    for entry in alive {
        if entry.treatment == Treatment::Allow {
            allowed.insert(entry.network, ());
        }
        let known = by_network.entry(entry.network).or_insert(entry);
        if rank(entry) < rank(known) {
            *known = entry;
        }
    }
    let counts = |entry: &&Entry| {
        entry.treatment == Treatment::Allow || allowed.covering(entry.network).is_none()
    };
    let mut live: Vec<_> = by_network.into_values().filter(counts).cloned().collect();
    live.sort_by_key(|entry| entry.network);
    live
}

/// Which of two entries for one network counts: the lower.
fn rank(entry: &Entry) -> u8 {
    match entry.treatment {
        Treatment::Allow => 0,
        Treatment::Ban => 1,
        Treatment::Deny => 2,
        Treatment::Class(_) => 3,
    }
}

/// When the next entry ends, and the list has to be made anew.
pub fn next_end(entries: &[Entry], now: u64) -> Option<u64> {
    entries.iter().filter_map(|entry| entry.until).filter(|until| *until > now).min()
}

/// What is allowed whatever is written: this machine itself, and the address an administrator is logged
/// in from who starts the gateway by SSH.
pub fn implied() -> Vec<Entry> {
    let loopback = ["127.0.0.0/8", "::1/128"].into_iter().filter_map(|text| text.parse().ok());
    let loopback = loopback.map(|network| (network, "loopback"));
    let session = ssh_client().map(|address| (IpNet::from(address), "the SSH session"));
    loopback
        .chain(session)
        .map(|(network, origin)| Entry {
            network,
            treatment: Treatment::Allow,
            until: None,
            comment: String::new(),
            origin: origin.to_owned(),
        })
        .collect()
}

/// Processes between the gateway and the session's shell that are asked: sudo and its kin leave the
/// variables out, but those above still have them.
const ANCESTORS_MAX: usize = 16;

/// The address of the client in `SSH_CONNECTION` or `SSH_CLIENT`, of this process or of one that started
/// it and may be read.
fn ssh_client() -> Option<IpAddr> {
    let mut process = "self".to_owned();
    for _ in 0..ANCESTORS_MAX {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        if let Some(address) = session_in(&environment) {
            return Some(address);
        }
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim();
        if parent == "0" {
            return None;
        }
        process = parent.to_owned();
    }
    None
}

fn session_in(environment: &[u8]) -> Option<IpAddr> {
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let variable = str::from_utf8(variable).ok()?;
        let value = variable
            .strip_prefix("SSH_CONNECTION=")
            .or_else(|| variable.strip_prefix("SSH_CLIENT="))?;
        // A link-local address comes with its interface.
        let address = value.split([' ', '%']).next()?;
        Some(address.parse::<IpAddr>().ok()?.to_canonical())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str, treatment: Treatment) -> Entry {
        Entry::parse(line, treatment, "here").unwrap()
    }

    /// One list serves the kernel program and policies.
    #[test]
    fn a_file_may_have_comments_of_both_kinds() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples/networks.txt");
        let read = read_file(&path, Treatment::Deny).unwrap();
        let told: Vec<_> =
            read.iter().map(|entry| (entry.network.to_string(), entry.comment.as_str())).collect();
        let expected = [("192.0.2.0/24", ""), ("2001:db8:bad::/48", "both are for documents")];
        assert_eq!(told, expected.map(|(network, comment)| (network.to_owned(), comment)));
    }

    #[test]
    fn allow_wins_within_its_networks_and_ended_entries_are_none() {
        let entries = [
            entry("10.0.0.0/8", Treatment::Deny),
            entry("10.1.0.0/16 until=2026-01-01", Treatment::Allow),
            entry("10.1.2.0/24", Treatment::Deny),
            entry("10.1.2.0/24", Treatment::Allow),
            entry("10.1.3.0/24", Treatment::Class(1)),
            entry("10.1.3.0/24", Treatment::Deny),
        ];
        let treatments = |now| -> Vec<(String, Treatment)> {
            live(&entries, now).iter().map(|e| (e.network.to_string(), e.treatment)).collect()
        };
        let expected = [
            ("10.0.0.0/8", Treatment::Deny),
            ("10.1.0.0/16", Treatment::Allow),
            ("10.1.2.0/24", Treatment::Allow),
        ];
        assert_eq!(treatments(0), expected.map(|(network, t)| (network.to_owned(), t)));
        let later = 1_767_225_600;
        let expected = [
            ("10.0.0.0/8", Treatment::Deny),
            ("10.1.2.0/24", Treatment::Allow),
            ("10.1.3.0/24", Treatment::Deny),
        ];
        assert_eq!(treatments(later), expected.map(|(network, t)| (network.to_owned(), t)));
        assert_eq!(next_end(&entries, 0), Some(later));
        assert_eq!(next_end(&entries, later), None);
    }

    #[test]
    fn a_session_is_found_among_variables() {
        let environment = b"A=1\0SSH_CLIENT=192.0.2.7 5 22\0B=SSH_CONNECTION=1.1.1.1 \0";
        assert_eq!(session_in(environment), Some("192.0.2.7".parse().unwrap()));
        let link_local = b"SSH_CONNECTION=fe80::1%eth0 5 fe80::2%eth0 22\0";
        assert_eq!(session_in(link_local), Some("fe80::1".parse().unwrap()));
        assert_eq!(session_in(b"SSH_CLIENT=\0"), None);
    }

    #[test]
    fn this_machine_is_always_allowed() {
        let implied = live(&implied(), 0);
        let allows = |text: &str| {
            let address: IpAddr = text.parse().unwrap();
            implied.iter().any(|entry| entry.network.contains(&address))
        };
        assert!(allows("127.0.0.1") && allows("127.9.9.9") && allows("::1") && !allows("10.0.0.1"));
    }
}
