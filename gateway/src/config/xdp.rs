//! `[xdp]`: where the kernel program runs, the limits per source, and the lists.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::check::MODES;
use super::values::interface;
use crate::admission::lists::{self, WRITTEN_MAX};
use crate::admission::{Class, Entry, Settings, Treatment};
use crate::document::section::Section;
use crate::document::units::{bytes, rate};
use crate::document::value::Kind;
use crate::document::values::{boolean, check_name, integer, once, path, text, word};
use crate::xdp;
use gateway_ebpf::flood;

const INTERFACES_HINT: &str = "write interfaces = [\"eth0\"], or give --xdp-interface";
const NETWORKS_HINT: &str = "write [\"203.0.113.0/24\", \"file:networks.txt\"]";

/// From one which is 512 sources, to 134 million of them.
const TABLE_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 30;
/// From one a minute to as many as the kernel's clock tells apart (2^14 ns).
const CONNECTION_RATE: RangeInclusive<f64> = 1.0 / 60.0..=60_000.0;
const CONNECTION_BURST: RangeInclusive<i64> = 1..=100_000;
const CONNECTIONS_MAX: RangeInclusive<i64> = 1..=1_000_000;
/// Those that may have a name; one is everybody's.
const CLASSES_MAX: usize = gateway_ebpf::abi::CLASSES_MAX as usize - 1;

const LOG_RATE: RangeInclusive<i64> = 0..=1000;
/// From where the kernel would hardly notice, to more than it can take.
const FLOOD: RangeInclusive<i64> = 100..=1_000_000;

/// What `enforce` may list in place of `true`.
const ENFORCEABLE: [&str; 4] = ["rate", "connections", "deny", "cookies"];

/// What `over_limit` may be: whether it resets.
const OVER_LIMIT: [(&str, bool); 2] = [("drop", false), ("reset", true)];

/// What `syn_cookies` may be: the threshold, where that is fixed.
const SYN_COOKIES: [(&str, Option<u64>); 3] =
    [("off", Some(flood::NEVER)), ("on", Some(flood::ALWAYS)), ("auto", None)];

/// What of the limits is enforced.
#[derive(Clone, Copy)]
struct Enforce {
    rate: bool,
    connections: bool,
    deny: bool,
    cookies: bool,
}

/// Reads the table. Without it there is no program and are no limits.
pub(super) fn read(root: &mut Section<'_>) -> (Option<xdp::Settings>, Settings) {
    if !root.has("xdp") {
        return (None, Settings::default());
    }
    root.table("xdp", |table| {
        let mut seen = HashSet::new();
        let settings = xdp::Settings {
            interfaces: table.list("interfaces", INTERFACES_HINT, |kind| {
                once(&mut seen, interface(kind)?, kind)
            }),
            mode: table.value("mode", xdp::Mode::Native, word(&MODES)),
            required: table.value("required", false, boolean),
            table_bytes: table.value("table", 8 << 20, |kind| {
                let bytes: u64 = bytes(TABLE_BYTES)(kind)?;
                match bytes.is_power_of_two() {
                    true => Ok(bytes),
                    false => Err("must be a power of two, as in \"8MiB\"".to_owned()),
                }
            }),
            keep: keep(table),
            log_rate: table.value("log_rate", 5, integer(LOG_RATE)),
            object: table.optional("object", path),
        };
        (Some(settings), sources(table))
    })
}

/// Where the program outlives the gateway, if it does.
fn keep(table: &mut Section<'_>) -> Option<PathBuf> {
    let folder = table.value("pin", PathBuf::from(xdp::PIN_FOLDER), path);
    table.value("on_exit", false, word(&[("detach", false), ("keep", true)])).then_some(folder)
}

fn sources(table: &mut Section<'_>) -> Settings {
    let none = Enforce { rate: false, connections: false, deny: false, cookies: false };
    let enforced = table.value("enforce", none, enforce);
    let everybody = class(table, String::new(), &Class::default(), enforced);
    let mut list = networks(table, "allow", Treatment::Allow, "xdp");
    list.extend(networks(table, "deny", Treatment::Deny, "xdp"));
    let mut classes = vec![everybody.clone()];
    table.named_tables("classes", |name, table| {
        if let Err(message) = check_name(name) {
            table.reject(message);
        }
        if classes.len() > CLASSES_MAX {
            return table.reject(format!("is one too many: there may be {CLASSES_MAX}"));
        }
        let enforced = table.value("enforce", enforced, enforce);
        // As many as there are so far, which is fewer than 64.
        let position = classes.len() as u8;
        let class_table = format!("xdp.classes.{name}");
        list.extend(networks(table, "networks", Treatment::Class(position), &class_table));
        classes.push(class(table, name.to_owned(), &everybody, enforced));
    });
    if list.len() > WRITTEN_MAX {
        let count = list.len();
        table.reject(format!("{count} networks in all lists together: at most {WRITTEN_MAX}"));
    }
    let threshold = table.value("flood", 5000, integer(FLOOD));
    let flood = table.value("syn_cookies", None, word(&SYN_COOKIES)).unwrap_or(threshold);
    Settings {
        flood,
        enforce_cookies: enforced.cookies,
        ipv4_prefix: table.value("ipv4_prefix", 32, integer(1..=32)),
        ipv6_prefix: table.value("ipv6_prefix", 64, integer(1..=128)),
        classes,
        enforce_deny: enforced.deny,
        list,
    }
}

/// The limits of a class; what it does not say is as in `default`.
fn class(table: &mut Section<'_>, name: String, default: &Class, enforce: Enforce) -> Class {
    let burst = default.connection_burst;
    Class {
        name,
        connection_rate: table.value(
            "connection_rate",
            default.connection_rate,
            rate(CONNECTION_RATE),
        ),
        connection_burst: table.value("connection_burst", burst, integer(CONNECTION_BURST)),
        connections_max: table.value(
            "connections_max",
            default.connections_max,
            |kind| match kind {
                Kind::Text(text) if text == "off" => Ok(0),
                other => integer(CONNECTIONS_MAX)(other)
                    .map_err(|message| format!("{message}; or \"off\" for any number")),
            },
        ),
        enforce_rate: enforce.rate,
        enforce_connections: enforce.connections,
        resets: table.value("over_limit", default.resets, word(&OVER_LIMIT)),
    }
}

/// `true`, `false`, or which.
fn enforce(kind: &Kind) -> Result<Enforce, String> {
    let wrong = || {
        "must be true, false or some of \"rate\", \"connections\", \"deny\", \"cookies\"".to_owned()
    };
    let all = |on| Enforce { rate: on, connections: on, deny: on, cookies: on };
    let listed = match kind {
        Kind::Boolean(on) => return Ok(all(*on)),
        Kind::List(listed) => listed,
        _ => return Err(wrong()),
    };
    let words: Vec<_> = listed.iter().map(|value| text(&value.kind)).collect::<Result<_, _>>()?;
    if words.iter().any(|word| !ENFORCEABLE.contains(word)) {
        return Err(wrong());
    }
    let [rate, connections, deny, cookies] = ENFORCEABLE.map(|word| words.contains(&word));
    Ok(Enforce { rate, connections, deny, cookies })
}

/// Networks, one by one or in files, all treated alike.
fn networks(
    table: &mut Section<'_>,
    key: &'static str,
    treatment: Treatment,
    within: &str,
) -> Vec<Entry> {
    if !table.has(key) {
        return Vec::new();
    }
    let read = table.list(key, NETWORKS_HINT, |kind| {
        let text = text(kind)?;
        match text.strip_prefix("file:") {
            Some("") => Err("names no file: write \"file:networks.txt\"".to_owned()),
            Some(path) => lists::read_file(Path::new(path), treatment),
            None => {
                let origin = format!("{within}.{key}");
                Entry::parse(text, treatment, &origin).map(|entry| vec![entry])
            }
        }
    });
    read.into_iter().flatten().collect()
}

/// Positions of the classes that have names.
pub(super) fn names(settings: &Settings) -> BTreeMap<String, usize> {
    let named = settings.classes.iter().enumerate().skip(1);
    named.map(|(position, class)| (class.name.clone(), position)).collect()
}

/// Trusted proxies speak for others: a limit or a ban would meet all of those.
pub(super) fn proxies(listeners: &[super::Listener]) -> impl Iterator<Item = Entry> {
    listeners.iter().enumerate().flat_map(|(index, listener)| {
        listener.trust.proxies.iter().map(move |network| Entry {
            network: *network,
            treatment: Treatment::Allow,
            until: None,
            comment: String::new(),
            origin: format!("listeners[{index}].trusted_proxies"),
        })
    })
}
