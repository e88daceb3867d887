//! The admin socket: what the command line asks a running gateway. Only its owner may use it, so it may
//! change things, which the admin address never does.

#![expect(clippy::disallowed_types, reason = "several parts of control keep bans")]

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Error;
use super::admin::{ACCEPT_PAUSE, CONNECTIONS_MAX, answer};
use super::bans::BY_HAND;
use super::sources::{Keeper, locked};
use super::traffic::Watch;
use crate::admission::bans::Ban;
use crate::admission::unix_now;
use crate::config::AdminSocket;
use crate::document::values::network_of;
use crate::xdp::Attachment;

/// Bytes of a request: as many bans as there may be, with their reasons.
const BODY_BYTES_MAX: usize = 16 << 20;

/// How long a ban by hand may last, in seconds: a year.
const BAN_SECONDS_MAX: u64 = Duration::from_secs(365 * 86_400).as_secs();

/// The socket, made; its file goes away with it.
pub(super) struct Socket {
    listener: UnixListener,
    file: File,
}

/// The file of a socket.
pub(super) struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the socket; nobody answers yet. One that nobody has asked for is left out where it cannot be
/// made.
pub(super) fn bind(settings: Option<&AdminSocket>) -> Result<Option<Socket>, Error> {
    let Some(AdminSocket { path, required }) = settings else { return Ok(None) };
    match listen(path) {
        Ok(listener) => Ok(Some(Socket { listener, file: File(path.clone()) })),
        Err(source) if *required => Err(Error::Socket { path: path.clone(), source }),
        Err(source) => {
            tracing::debug!("no admin socket at {}: {source}", path.display());
            Ok(None)
        }
    }
}

/// Nobody but the owner can ever connect: the socket gets its name when its mode is right.
fn listen(path: &PathBuf) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        let message = "another gateway answers there";
        return Err(io::Error::new(ErrorKind::AddrInUse, message));
    }
    let mut new = path.clone().into_os_string();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    let listener = UnixListener::bind(&new)?;
    let named = fs::set_permissions(&new, Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::rename(&new, path));
    named.inspect_err(|_| drop(fs::remove_file(&new))).map(|()| listener)
}

impl Socket {
    /// Starts to answer. The file is there for as long as what this returns.
    pub fn serve(self, keeper: Arc<Keeper>, watch: Arc<Watch>) -> Result<File, Error> {
        let listener = tokio::net::UnixListener::from_std(self.listener).map_err(Error::Runtime)?;
        let router = Router::new()
            .route("/bans", get(bans).post(ban))
            .route("/unban", post(unban))
            .route("/xdp", get(xdp_status))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(keeper)
            .route("/sources", get(sources))
            .with_state(watch);
        tokio::spawn(accept(listener, router));
        Ok(self.file)
    }
}

async fn accept(listener: tokio::net::UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed, so a place always comes.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    answer(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("admin socket: cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn bans(State(keeper): State<Arc<Keeper>>) -> impl IntoResponse {
    let now = unix_now();
    let bans = keeper.held().into_iter().map(|(ban, drops)| {
        let Ban { network, until, level, reason, in_kernel } = ban;
        json!({
            "network": network.to_string(),
            "until": until,
            "seconds": until.saturating_sub(now),
            "level": level,
            "reason": reason,
            "direct": in_kernel,
            "kept_by": if in_kernel && keeper.kernel().is_some() { "kernel" } else { "workers" },
            "drops": drops,
        })
    });
    as_json(&Value::Array(bans.collect()))
}

/// Bans what the array names; each with its end or for how many seconds, and with the rest of what [`bans`] tells,
/// if it is there.
async fn ban(State(keeper): State<Arc<Keeper>>, body: String) -> Response {
    each(&body, |element| {
        let network = network_in(element)?;
        let now = unix_now();
        let number = |key: &str| element.get(key).and_then(Value::as_u64);
        let until = number("until").or(number("seconds").map(|for_| now.saturating_add(for_)));
        let until = until.ok_or("neither \"until\" nor \"seconds\"")?;
        if until <= now {
            return Err("it has ended already".to_owned());
        }
        let until = until.min(now.saturating_add(BAN_SECONDS_MAX));
        let reason = element.get("reason").and_then(Value::as_str).unwrap_or(BY_HAND);
        let level = u32::try_from(number("level").unwrap_or(0)).unwrap_or(u32::MAX);
        let in_kernel = element.get("direct").and_then(Value::as_bool).unwrap_or(true);
        let ban = Ban { network, until, level, reason: reason.to_owned(), in_kernel };
        let (network, given_up) = keeper.ban(ban)?;
        tracing::info!("banned {network} for {}s: {reason}", until - now);
        let instead_of = given_up.map(|network| network.to_string());
        let network = network.to_string();
        Ok(json!({ "network": network, "until": until, "instead_of": instead_of }))
    })
}

/// Ends the bans of what the array names.
async fn unban(State(keeper): State<Arc<Keeper>>, body: String) -> Response {
    each(&body, |element| {
        let network = network_in(element)?;
        if !keeper.unban(network) {
            return Err(format!("{network} is not banned"));
        }
        tracing::info!("no longer banned: {network}");
        Ok(json!({ "network": network.to_string() }))
    })
}

/// Networks told of, those with the most hits.
const HITS_MAX: usize = 10_000;

async fn xdp_status(State(keeper): State<Arc<Keeper>>) -> Response {
    let Some(kernel) = keeper.kernel() else {
        return as_json(&json!({ "interfaces": [] })).into_response();
    };
    let (counters, hits) = match (kernel.counters(), keeper.hits()) {
        (Ok(counters), Ok(hits)) => (counters, hits),
        (Err(error), _) | (_, Err(error)) => {
            let wrong = json!({ "error": error.to_string() });
            return (StatusCode::INTERNAL_SERVER_ERROR, as_json(&wrong)).into_response();
        }
    };
    let attachments = kernel.attachments().iter().zip(keeper.interfaces());
    let interfaces = attachments.map(|(attachment, (_, attached))| {
        let Attachment { interface, hook, frags, .. } = attachment;
        json!({ "name": interface, "mode": hook.to_string(), "frags": frags, "attached": attached })
    });
    let packets = counters.into_iter().flat_map(|(interface, counts)| {
        counts.into_iter().map(move |count| {
            json!({
                "interface": interface,
                "verdict": count.verdict.action.label(),
                "reason": count.verdict.reason.label(),
                "packets": count.packets,
            })
        })
    });
    let networks = hits.len();
    let current = Arc::clone(&locked(&keeper.current));
    let hits = hits.iter().take_while(|(packets, _)| *packets > 0).take(HITS_MAX);
    let hits = hits.map(|(packets, entry)| {
        json!({
            "network": entry.network.to_string(),
            "packets": packets,
            "list": current.list_of(entry),
            "origin": entry.origin,
            "comment": entry.comment,
        })
    });
    as_json(&json!({
        "interfaces": interfaces.collect::<Value>(),
        "packets": packets.collect::<Value>(),
        "flood": keeper.flood().is_some_and(|(flooded, _)| flooded),
        "networks": networks,
        "hits": hits.collect::<Value>(),
        "bans": keeper.ban_counts().held,
        "bans_by_workers": keeper.bans_by_workers(),
    }))
    .into_response()
}

/// What sources do, as it is next seen.
async fn sources(State(watch): State<Arc<Watch>>) -> impl IntoResponse {
    as_json(&json!(watch.report().await))
}

/// Does something about each element of an array, and tells what came of it: one by one, so that one
/// that is wrong keeps nobody else out.
fn each(body: &str, act: impl Fn(&Value) -> Result<Value, String>) -> Response {
    let elements = match serde_json::from_str(body) {
        Ok(Value::Array(elements)) => elements,
        _ => {
            let wrong = json!({ "error": "the body is no JSON array" });
            return (StatusCode::BAD_REQUEST, as_json(&wrong)).into_response();
        }
    };
    let results = elements.iter().map(|element| {
        act(element).unwrap_or_else(|error| {
            json!({ "network": element.get("network").cloned().unwrap_or_default(), "error": error })
        })
    });
    as_json(&Value::Array(results.collect())).into_response()
}

fn network_in(element: &Value) -> Result<IpNet, String> {
    network_of(element.get("network").and_then(Value::as_str).ok_or("no \"network\"")?)
}

fn as_json(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n"))
}
