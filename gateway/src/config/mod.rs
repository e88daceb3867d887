//! The configuration, from what a person wrote to what the program uses: `file` reads the text
//! into a document with places, `flags` lays the command line over it, and `check` reads that,
//! `section` by `section` and through `values` and `units`, into a [`Config`], which cannot be
//! wrong, or into every mistake there is. Nothing here touches the network; names of endpoints
//! are looked up later.

mod bans;
mod check;
mod compose;
mod error;
mod flags;
mod lint;
mod order;
mod policies;
mod routes;
mod tls;
mod upstreams;
mod values;
mod xdp;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::document::{Place, Problem};
pub use bans::ban_length;
pub use error::Error;

use crate::action::mirror::Mirror;
use crate::action::rewrite::Rewrite;
use crate::action::{Action, Fallback};
use crate::document::value::Document;
use crate::exchange::{Limits, Pages, Timeouts, Trust};
use crate::http::ambiguity::Ambiguities;
use crate::net::rt::Driver;
use crate::routing::{Conditions, Entry, HostPattern, PathPattern, Table};
use crate::telemetry::access_log;
use crate::{admission, policy, upstream};

/// Bytes of a configuration file: some 500,000 routes. Ends the reading of what is no file.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads the file, if there is one, lays the flags over it and checks the whole. `cpus` are those
/// the process may use, at least one.
pub fn load(path: Option<&Path>, flags: &Overrides, cpus: &[usize]) -> Result<Config, Error> {
    let bytes = path.map_or(Ok(Vec::new()), |path| {
        read(path).map_err(|cause| Error::Unreadable { path: path.to_owned(), cause })
    })?;
    check::check(&bytes, flags, cpus)
        .map_err(|problems| Error::Wrong { path: path.map(Path::to_owned), problems })
}

/// Puts the line of the file that each of its [warnings](Config::warnings) is about in front of it.
pub fn placed(path: &Path, warnings: Vec<String>) -> Vec<String> {
    let bytes = read(path).unwrap_or_default();
    let document = Document::parse(&String::from_utf8_lossy(&bytes));
    let line = |warning: String| {
        let key = warning.split(": ").next().unwrap_or_default();
        let place = document.root.place_of(key).unwrap_or(Place::Whole);
        Problem { place, key: "warning".to_owned(), message: warning }.line(Some(path))
    };
    warnings.into_iter().map(line).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("larger than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// A checked configuration: every name resolved to an index, every value within its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// CPUs to pin a worker to each, in order, at least one.
    pub cores: Vec<usize>,
    /// What workers wait by; `None` for io_uring where it can be used.
    pub driver: Option<Driver>,
    /// How long requests in flight get when the gateway stops.
    pub drain_timeout: Duration,
    /// How long tunnels get; counted from the same moment, so never less.
    pub tunnel_drain_timeout: Duration,
    /// Deadlines of an exchange.
    pub timeouts: Timeouts,
    /// Bounds of an exchange.
    pub limits: Limits,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Where the command line reaches the running gateway, if anywhere.
    pub admin_socket: Option<AdminSocket>,
    /// What the gateway's own answers say, where files say it.
    pub pages: Pages,
    /// Where and how requests are logged, if at all.
    pub access_log: Option<access_log::Settings>,
    /// The kernel program, if any.
    pub xdp: Option<crate::xdp::Settings>,
    /// The limits per source and the lists.
    pub sources: admission::Settings,
    /// When offences become bans, if they do.
    pub bans: Option<admission::bans::Settings>,
    /// What listeners may offer; they refer to it by position.
    pub tls: Vec<crate::tls::server::Settings>,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// How names of endpoints are looked up.
    pub dns: Dns,
    /// Named groups of endpoints; routes refer to them by position.
    pub upstreams: Vec<upstream::Spec>,
    /// What listeners and routes ask of requests; they refer to it by position.
    pub policies: Vec<Policy>,
    /// At least one, in the order written.
    pub routes: Vec<Route>,
}

impl Config {
    /// The same with [its files](Self::watched_files) as they are now; what is wrong with one is told to
    /// `wrong`, and it counts as it was. Blocks.
    pub fn reread_files(&self, wrong: &mut Vec<String>) -> Self {
        let mut config = self.clone();
        for settings in &mut config.tls {
            *settings = settings.reread(wrong);
        }
        for settings in config.upstreams.iter_mut().filter_map(|upstream| upstream.tls.as_mut()) {
            *settings = settings.reread(wrong);
        }
        for Policy { name, settings } in &mut config.policies {
            match settings.reread() {
                Ok(reread) => *settings = reread,
                Err(message) => wrong.push(format!("policies.{name}: {message}")),
            }
        }
        config
    }

    /// The routes by what they are for; `target` makes of each what a look-up finds.
    pub fn table<T>(&self, mut target: impl FnMut(usize, &Route) -> T) -> Table<T> {
        Table::new(self.routes.iter().enumerate().map(|(index, route)| Entry {
            priority: route.priority,
            host: route.host.clone(),
            path: route.path.clone(),
            conditions: route.conditions.count(),
            target: target(index, route),
        }))
    }

    /// The files that count as soon as they change: what TLS is set up from, and what policies read.
    pub fn watched_files(&self) -> impl Iterator<Item = &Path> {
        let listeners = self.tls.iter().flat_map(crate::tls::server::Settings::files);
        let upstreams = self.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
        let policies = self.policies.iter().flat_map(|policy| policy.settings.files());
        let upstreams = upstreams.flat_map(crate::tls::client::Settings::files);
        listeners.chain(upstreams).chain(policies)
    }
}

/// How names of endpoints are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Whom to ask; none for those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// How long each server may take.
    pub timeout: Duration,
    /// The least and the most of a time to live that counts.
    pub ttl: (Duration, Duration),
    /// How long the last addresses of a name count after there are none any more.
    pub hold: Duration,
    /// Whether a configuration counts only if all its names have addresses.
    pub required: bool,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            ttl: (Duration::from_secs(1), Duration::from_secs(600)),
            hold: Duration::from_secs(30),
            required: false,
        }
    }
}

/// A socket that only its owner may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Refuse to start without it; one that nobody has asked for is made where its folder is.
    pub required: bool,
}

/// Where the socket is unless another place is named.
pub const ADMIN_SOCKET: &str = "/run/gateway/admin.sock";

impl Default for AdminSocket {
    fn default() -> Self {
        Self { path: PathBuf::from(ADMIN_SOCKET), required: false }
    }
}

/// One address clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Position in [`Config::tls`], where TLS is spoken.
    pub tls: Option<usize>,
    /// Whom it believes.
    pub trust: Trust,
    /// Positions in [`Config::policies`], in the order they are asked.
    pub policies: Vec<usize>,
    /// The port at which clients of plain HTTP are to speak HTTPS instead.
    pub redirect: Option<u16>,
    /// Position in [`admission::Settings::classes`] of the limits for who connects here.
    pub class: u8,
}

/// One policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What listeners and routes call it.
    pub name: String,
    /// What it does.
    pub settings: policy::Settings,
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which hosts it serves.
    pub host: HostPattern,
    /// Which paths it serves.
    pub path: PathPattern,
    /// Before all of a lower one.
    pub priority: i32,
    /// What it asks of a request beside that.
    pub conditions: Conditions,
    /// What it does; upstreams are positions in [`Config::upstreams`].
    pub action: Action,
    /// What requests are called on their way to the origin.
    pub rewrite: Rewrite,
    /// Bytes of a request body, where the route has its own limit.
    pub body_bytes: Option<u64>,
    /// How long a whole exchange may take, where the route has its own bound.
    pub timeout: Option<Duration>,
    /// What answers where its upstream cannot.
    pub fallback: Option<Fallback>,
    /// Where copies of some requests go.
    pub mirror: Option<Mirror>,
    /// In which ways a path may be ambiguous.
    pub allow_in_path: Ambiguities,
    /// Positions in [`Config::policies`], in the order they are asked, after those of the listener.
    pub policies: Vec<usize>,
}

impl Route {
    /// The upstreams it may pass requests on to.
    pub fn upstreams(&self) -> impl Iterator<Item = usize> {
        let fallback = match &self.fallback {
            Some(Fallback::Forward(upstream)) => Some(*upstream),
            Some(Fallback::Respond(_)) | None => None,
        };
        let mirror = self.mirror.map(|mirror| mirror.upstream);
        self.action.upstreams().chain(fallback).chain(mirror)
    }
}

/// What the command line says; it wins over the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `--cores`, as `runtime.cores`.
    pub cores: Option<String>,
    /// `--driver`, as `runtime.driver`.
    pub driver: Option<String>,
    /// `--listen`: replaces every listener of the file.
    pub listen: Vec<SocketAddr>,
    /// `--upstream HOST:PORT`: one upstream of these endpoints, serving every host and path, in
    /// place of the file's upstreams and routes.
    pub upstream: Vec<String>,
    /// `--admin`: an address or `off`.
    pub admin: Option<String>,
    /// `--access-log`: `json`, `combined` or `off`, to standard output.
    pub access_log: Option<String>,
    /// `--xdp-interface`: replaces the file's.
    pub xdp_interfaces: Vec<String>,
    /// `--xdp-mode`.
    pub xdp_mode: Option<crate::xdp::Mode>,
    /// `--xdp-enforce`.
    pub xdp_enforce: bool,
    /// `--conn-rate`: `50` or `50/s`.
    pub conn_rate: Option<String>,
    /// `--conn-burst`.
    pub conn_burst: Option<u32>,
    /// `--conn-max`.
    pub conn_max: Option<u32>,
    /// `--xdp-object`.
    pub xdp_object: Option<PathBuf>,
}
