//! Reads the document table by table into a [`Config`] and finds every mistake on the way. Each
//! key is one line here: its name, what it may be, its default.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::policies::Policies;
use super::values::cores;
use super::{
    AdminSocket, Config, Dns, Listener, Overrides, bans, flags, routes, tls, upstreams, values, xdp,
};
use crate::document::problem::{Place, Problem};
use crate::document::section::{Section, read_document};
use crate::document::units::{byte_rate, bytes, duration};
use crate::document::value::{Document, Kind};
use crate::document::values::{address, boolean, integer, network, once, path, text, word};
use crate::exchange::{Limits, Pages, ProxyProtocol, Timeouts, Trust};
use crate::http::forwarded;
use crate::net::rt::Driver;
use crate::telemetry::access_log;
use crate::xdp::Mode;

/// The upstream that `--upstream` makes.
pub(super) const UPSTREAM_DEFAULT: &str = "default";

/// What `xdp.mode` may be.
pub(super) const MODES: [(&str, Mode); 3] =
    [("native", Mode::Native), ("generic", Mode::Generic), ("auto", Mode::Auto)];

/// What `runtime.driver` may be.
const DRIVERS: [(&str, Option<Driver>); 3] =
    [("auto", None), ("io_uring", Some(Driver::IoUring)), ("epoll", Some(Driver::Epoll))];

/// What `access_log.format` may be.
const FORMATS: [(&str, Option<access_log::Format>); 3] = [
    ("json", Some(access_log::Format::Json)),
    ("combined", Some(access_log::Format::Combined)),
    ("off", None),
];

/// What `listeners.proxy_protocol` may be.
const PROXY_PROTOCOL: [(&str, ProxyProtocol); 3] = [
    ("off", ProxyProtocol::Off),
    ("optional", ProxyProtocol::Optional),
    ("required", ProxyProtocol::Required),
];

/// What `listeners.forwarded_field` may be.
const FORWARDED_FIELDS: [(&str, forwarded::Source); 2] = [
    ("x-forwarded-for", forwarded::Source::XForwarded),
    ("forwarded", forwarded::Source::Forwarded),
];

const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TUNNEL_DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

const LISTENERS_HINT: &str = "write [[listeners]] with an address, or give --listen";
const TRUSTED_HINT: &str = "write [\"10.0.0.0/8\"]";

const SERVERS_HINT: &str = "write [\"192.0.2.53\"]";

const DAY: Duration = Duration::from_secs(86_400);
/// No timeout can be switched off.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAY;
/// Servers are not to be asked without end.
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
/// Zero believes at once.
const HOLD: RangeInclusive<Duration> = Duration::ZERO..=DAY;
/// Zero stops at once.
const DRAIN_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=DAY;
/// A start line and a few fields must fit; a buffer of the upper end is held per busy connection.
const HEAD_BYTES: RangeInclusive<u64> = 1 << 10..=64 << 10;
/// A request to `/` must fit.
const REQUEST_LINE_BYTES: RangeInclusive<u64> = 64..=64 << 10;
/// Zero is no bound.
const BODY_RATE: RangeInclusive<u64> = 0..=1 << 30;
/// The upper end is there to catch a slip of the hand.
pub(super) const BODY_BYTES: RangeInclusive<u64> = 0..=1024 << 40;
pub(super) const COUNT: RangeInclusive<i64> = 1..=1_000_000_000;

pub(super) fn check(
    bytes: &[u8],
    overrides: &Overrides,
    cpus: &[usize],
) -> Result<Config, Vec<Problem>> {
    let text = str::from_utf8(bytes).map_err(|error| vec![not_utf8(bytes, error.valid_up_to())])?;
    let mut document = Document::parse(text);
    flags::lay_over(&mut document.root, overrides);
    read_document(&document, |root| config(root, cpus))
}

fn not_utf8(bytes: &[u8], position: usize) -> Problem {
    let newlines = bytes.iter().take(position).filter(|&&byte| byte == b'\n').count();
    let message = "not UTF-8: save the file in that encoding".to_owned();
    Problem { place: Place::Line(1 + newlines), key: String::new(), message }
}

fn config(root: &mut Section<'_>, cpus: &[usize]) -> Config {
    let Runtime { cores, driver, drain_timeout, tunnel_drain_timeout } =
        root.table("runtime", |table| runtime(table, cpus));
    let timeouts = root.table("timeouts", timeouts);
    let limits = root.table("limits", limits);
    let underscores = root.table("http", http);
    let limits = Limits { underscores, ..limits };
    let pages = root.table("pages", pages);
    let tls = tls::offers(root);
    let upstreams = upstreams::read(root, cores.len());
    let mut policies = Policies::read(root, &upstreams);
    let (xdp, mut sources) = xdp::read(root);
    let bans = bans::read(root);
    let listeners = listeners(root, &tls, &mut policies, &xdp::names(&sources));
    sources.list.extend(xdp::proxies(&listeners));
    let (admin, admin_socket) =
        root.table("admin", |table| (admin(table, &listeners), admin_socket(table)));
    let access_log = root.table("access_log", access_log);
    let dns = root.table("dns", dns);
    let routes = routes::read(root, &upstreams, &mut policies);
    Config {
        cores,
        driver,
        drain_timeout,
        tunnel_drain_timeout,
        timeouts,
        limits,
        pages,
        admin,
        admin_socket,
        access_log,
        xdp,
        sources,
        bans,
        tls,
        listeners,
        dns,
        upstreams,
        policies: policies.all,
        routes,
    }
}

/// The keys of `[runtime]`.
struct Runtime {
    cores: Vec<usize>,
    driver: Option<Driver>,
    drain_timeout: Duration,
    tunnel_drain_timeout: Duration,
}

fn runtime(table: &mut Section<'_>, cpus: &[usize]) -> Runtime {
    Runtime {
        cores: table.value("cores", cpus.to_vec(), |kind| cores(kind, cpus)),
        driver: table.value("driver", None, word(&DRIVERS)),
        drain_timeout: table.value("drain_timeout", DRAIN_TIMEOUT_DEFAULT, duration(DRAIN_TIMEOUT)),
        tunnel_drain_timeout: table.value(
            "tunnel_drain_timeout",
            TUNNEL_DRAIN_TIMEOUT_DEFAULT,
            duration(DRAIN_TIMEOUT),
        ),
    }
}

fn timeouts(table: &mut Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        head: table.value("head", default.head, duration(TIMEOUT)),
        body: table.value("body", default.body, duration(TIMEOUT)),
        keep_alive: table.value("keep_alive", default.keep_alive, duration(TIMEOUT)),
        connect: table.value("connect", default.connect, duration(TIMEOUT)),
        response: table.value("response", default.response, duration(TIMEOUT)),
        tunnel: table.value("tunnel", default.tunnel, duration(TIMEOUT)),
        handshake: table.value("handshake", default.handshake, duration(TIMEOUT)),
        request: table.value("request", default.request, |kind| match kind.is_text("none") {
            true => Ok(None),
            false => duration(TIMEOUT)(kind).map(Some),
        }),
    }
}

fn limits(table: &mut Section<'_>) -> Limits {
    let default = Limits::default();
    let requests = default.requests_per_connection;
    Limits {
        head_bytes: table.value("head_bytes", default.head_bytes, bytes(HEAD_BYTES)),
        request_line_bytes: table.value(
            "request_line_bytes",
            default.request_line_bytes,
            bytes(REQUEST_LINE_BYTES),
        ),
        fields: table.value("fields", default.fields, integer(1..=1000)),
        body_bytes: table.value("body_bytes", default.body_bytes, bytes(BODY_BYTES)),
        body_rate: table.value("body_rate", default.body_rate, byte_rate(BODY_RATE)),
        connections: table.value("connections", default.connections, |kind| match kind {
            Kind::Text(text) if text == "auto" => Ok(None),
            other => integer(COUNT)(other)
                .map(Some)
                .map_err(|_| format!("must be \"auto\" or a whole number, 1 to {}", COUNT.end())),
        }),
        handshakes: table.value("handshakes", default.handshakes, integer(COUNT)),
        requests_per_connection: table.value("requests_per_connection", requests, integer(COUNT)),
        underscores: default.underscores,
    }
}

fn http(table: &mut Section<'_>) -> bool {
    table.value("underscores_in_names", Limits::default().underscores, boolean)
}

fn pages(table: &mut Section<'_>) -> Pages {
    table.value("folder", Pages::default(), values::pages)
}

fn listeners(
    root: &mut Section<'_>,
    tls: &[crate::tls::server::Settings],
    policies: &mut Policies,
    classes: &BTreeMap<String, usize>,
) -> Vec<Listener> {
    let names = tls.iter().enumerate().map(|(index, tls)| (tls.name.clone(), index)).collect();
    let mut listeners = Vec::new();
    let mut seen = HashSet::new();
    root.tables("listeners", LISTENERS_HINT, |_, table| {
        let address = table.required("address", "write \"0.0.0.0:8080\"", |kind| {
            let address = address(kind)?;
            // Each listener at port 0 gets a port of its own.
            if address.port() == 0 {
                return Ok(address);
            }
            // IPv6 sockets take no IPv4.
            let overlaps = |other: &&SocketAddr| {
                let same = other.port() == address.port() && other.is_ipv4() == address.is_ipv4();
                same && **other != address
                    && (other.ip().is_unspecified() || address.ip().is_unspecified())
            };
            match seen.iter().find(overlaps) {
                Some(other) => Err(format!("{address} and {other} overlap: write one of them")),
                None => once(&mut seen, address, kind),
            }
        });
        let tls = table.has("tls").then(|| table.reference("tls", &names)).flatten();
        let trust = trust(table);
        let policies = policies.listed(table);
        let redirect = table.optional("redirect", redirect);
        let class = table.has("class").then(|| table.reference("class", classes)).flatten();
        // There are fewer than 64.
        let class = class.map_or(0, |position| position as u8);
        // The kernel tells listeners by their ports.
        let port = address.map_or(0, |address| address.port());
        let others = listeners.iter().filter(|other: &&Listener| other.address.port() == port);
        if let Some(other) = others.into_iter().find(|other| port != 0 && other.class != class) {
            let message = format!("{} has the same port and another class", other.address);
            table.reject_value("class", message);
        }
        let listener = |address| Listener { address, tls, trust, policies, redirect, class };
        listeners.extend(address.map(listener));
    });
    listeners
}

/// `"https"` or `"https:8443"`, as the port.
fn redirect(kind: &Kind) -> Result<u16, String> {
    let port = match text(kind)?.strip_prefix("https") {
        Some("") => Some(443),
        Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        None => None,
    };
    port.filter(|port| *port != 0)
        .ok_or_else(|| "must be \"https\" or, with a port, \"https:8443\"".to_owned())
}

fn trust(table: &mut Section<'_>) -> Trust {
    let mut proxies = Vec::new();
    if table.has("trusted_proxies") {
        let mut seen = HashSet::new();
        proxies = table
            .list("trusted_proxies", TRUSTED_HINT, |kind| once(&mut seen, network(kind)?, kind));
    }
    let nobody = proxies.is_empty();
    let needs_trust = |kind: &Kind, found| match nobody {
        true if kind.is_text("off") => Ok(found),
        true => Err("says who may be believed only with trusted_proxies".to_owned()),
        false => Ok(found),
    };
    Trust {
        proxy_protocol: table.value("proxy_protocol", ProxyProtocol::Off, |kind| {
            needs_trust(kind, word(&PROXY_PROTOCOL)(kind)?)
        }),
        forwarded_field: table.value(
            "forwarded_field",
            forwarded::Source::XForwarded,
            word(&FORWARDED_FIELDS),
        ),
        proxies,
    }
}

fn admin(table: &mut Section<'_>, listeners: &[Listener]) -> Option<SocketAddr> {
    table.value("address", Some(ADMIN_DEFAULT), |kind| match kind {
        Kind::Text(text) if text == "off" => Ok(None),
        _ => {
            let address = address(kind).map_err(|message| format!("{message}, or \"off\""))?;
            let taken = |listener: &Listener| listener.address == address && address.port() != 0;
            match listeners.iter().any(taken) {
                true => Err(format!("{address} is a listener's, which clients reach")),
                false => Ok(Some(address)),
            }
        }
    })
}

fn dns(table: &mut Section<'_>) -> Dns {
    let default = Dns::default();
    let mut seen = HashSet::new();
    let ttl_min = table.value("ttl_min", default.ttl.0, duration(TTL));
    Dns {
        servers: match table.has("servers") {
            true => {
                table.list("servers", SERVERS_HINT, |kind| once(&mut seen, server(kind)?, kind))
            }
            false => default.servers,
        },
        timeout: table.value("timeout", default.timeout, duration(TIMEOUT)),
        ttl: (
            ttl_min,
            table.value("ttl_max", default.ttl.1.max(ttl_min), |kind| match duration(TTL)(kind)? {
                ttl_max if ttl_max < ttl_min => Err("is less than ttl_min".to_owned()),
                ttl_max => Ok(ttl_max),
            }),
        ),
        hold: table.value("hold", default.hold, duration(HOLD)),
        required: table.value("required", default.required, boolean),
    }
}

/// An address, with a port or without.
fn server(kind: &Kind) -> Result<SocketAddr, String> {
    match text(kind)?.parse::<IpAddr>() {
        Ok(ip) => Ok((ip, 53).into()),
        Err(_) => address(kind),
    }
}

fn admin_socket(table: &mut Section<'_>) -> Option<AdminSocket> {
    table.value("socket", Some(AdminSocket::default()), |kind| match kind {
        Kind::Text(text) if text == "off" => Ok(None),
        other => path(other).map(|path| Some(AdminSocket { path, required: true })),
    })
}

fn access_log(table: &mut Section<'_>) -> Option<access_log::Settings> {
    let format = table.value("format", Some(access_log::Format::Json), word(&FORMATS));
    let path = table.value("path", None, |kind| match kind {
        Kind::Text(text) if text == "-" => Ok(None),
        other => path(other).map(Some),
    });
    format.map(|format| access_log::Settings { format, path })
}
