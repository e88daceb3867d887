//! Fetches the keys that tokens are verified by, off the workers: when they may have changed, and when a
//! worker misses one.

#![expect(clippy::disallowed_types, reason = "workers look at the keys that are fetched here")]

use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};

use super::admin::Status;
use super::prober::about;
use super::resolver::Resolver;
use crate::config::{Config, Dns};
use crate::policy::jwt::{Ask, Remote, Source};
use crate::policy::{self, Settings};
use crate::tls::Connector;

/// How long one fetch may take, all addresses together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long one address may take until it is connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a set: hundreds of keys with their certificates.
const SET_BYTES_MAX: usize = 1 << 20;

/// All sources that are fetched from.
#[derive(Debug, Default)]
pub(super) struct KeySets {
    fetching: Vec<Fetching>,
    dns: watch::Sender<Dns>,
}

#[derive(Debug)]
struct Fetching {
    source: Arc<Source>,
    task: JoinHandle<()>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl KeySets {
    /// From now on these are the sources: those of a configuration's policies, in its order.
    pub fn watch(&mut self, config: &Config, shared: &[policy::Shared], status: &Arc<Status>) {
        self.dns.send_replace(config.dns.clone());
        let mut before = std::mem::take(&mut self.fetching);
        for (policy, shared) in config.policies.iter().zip(shared) {
            let source = shared.as_ref().and_then(|shared| Arc::clone(shared).downcast().ok());
            let Some(source): Option<Arc<Source>> = source else { continue };
            if let Some(same) = before.iter().position(|one| Arc::ptr_eq(&one.source, &source)) {
                self.fetching.push(before.swap_remove(same));
                continue;
            }
            // Whatever else of the policy has changed, the keys it had are as good as before.
            for one in &before {
                source.take_over(&one.source);
            }
            let Some(inbox) = source.take_inbox() else { continue };
            let follow = Follow {
                name: policy.name.clone(),
                source: Arc::clone(&source),
                dns: self.dns.subscribe(),
                status: Arc::clone(status),
                failure: None,
            };
            self.fetching.push(Fetching { source, task: tokio::spawn(follow.run(inbox)) });
        }
    }
}

/// Fetches the keys without which a configuration is not to count.
///
/// # Errors
/// When they cannot be fetched, or none of them can be used.
pub(super) async fn look_up(config: &Config) -> Result<(), String> {
    for policy in &config.policies {
        let Settings::jwt(settings) = &policy.settings else { continue };
        let Some(remote) = settings.remote().filter(|remote| remote.required) else { continue };
        let fetched = fetch(remote, &config.dns).await;
        fetched.and_then(|fetched| settings.check_keys(&fetched.set)).map_err(|reason| {
            let (name, url) = (&policy.name, &remote.url.text);
            format!("policies.{name}: cannot fetch {url}, and required is true: {reason}")
        })?;
    }
    Ok(())
}

/// Fetches the keys of one source again and again.
struct Follow {
    name: String,
    source: Arc<Source>,
    dns: watch::Receiver<Dns>,
    status: Arc<Status>,
    /// What was wrong the last time, which is told once.
    failure: Option<String>,
}

impl Follow {
    async fn run(mut self, mut inbox: Receiver<Ask>) {
        let Remote { refresh, refresh_min, .. } = self.source.remote;
        let mut asked = None;
        loop {
            let dns = self.dns.borrow().clone();
            let fetched = fetch(&self.source.remote, &dns).await;
            // Who has asked meanwhile is answered, too; not who knows the new keys already and asks for others.
            let meanwhile: Vec<Ask> = iter::from_fn(|| inbox.try_recv().ok()).collect();
            let max_age = fetched.as_ref().ok().and_then(|fetched| fetched.max_age);
            self.hear(fetched.and_then(|fetched| self.source.put(&fetched.set)));
            let again_in = match self.failure {
                None => max_age.unwrap_or(refresh).clamp(refresh_min.min(refresh), refresh),
                Some(_) => refresh_min,
            };
            if asked.is_some() || self.failure.is_some() {
                self.source.close_for(refresh_min);
            }
            drop((asked, meanwhile));
            asked = self.asked(&mut inbox, Instant::now() + about(again_in)).await;
        }
    }

    /// Who asks for other keys, if somebody does before it is time.
    async fn asked(&self, inbox: &mut Receiver<Ask>, at: Instant) -> Option<Ask> {
        // The source holds the other end, so it stays open.
        while let Ok(Some(ask)) = timeout_at(at, inbox.recv()).await {
            // Who asked while others came looks at those first.
            if self.source.may_ask() && self.source.lack(&ask) {
                return Some(ask);
            }
        }
        None
    }

    /// Says what came of it, if that is new.
    fn hear(&mut self, put: Result<(usize, bool), String>) {
        self.status.count_key_fetch(put.is_ok());
        let (name, url) = (&self.name, &self.source.remote.url.text);
        match put {
            Ok((count, changed)) => {
                if self.failure.take().is_some() || changed {
                    tracing::info!("policies.{name}: keys fetched from {url}: {count}");
                }
            }
            Err(reason) => {
                if self.failure.as_ref() != Some(&reason) {
                    let left = match self.source.count() {
                        0 => "requests with a token get 503".to_owned(),
                        _ => "the keys it had stay in use".to_owned(),
                    };
                    tracing::warn!("policies.{name}: cannot fetch {url}: {reason}; {left}");
                }
                self.failure = Some(reason);
            }
        }
    }
}

struct Fetched {
    set: Bytes,
    /// How long it counts by its own word.
    max_age: Option<Duration>,
}

async fn fetch(remote: &Remote, dns: &Dns) -> Result<Fetched, String> {
    let fetched = timeout(TIMEOUT, fetch_from_any(remote, dns)).await;
    fetched.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

async fn fetch_from_any(remote: &Remote, dns: &Dns) -> Result<Fetched, String> {
    let addresses = match remote.url.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => Resolver::new(dns)?.addresses(&remote.url.host).await?,
    };
    let connector = remote.tls.as_ref().map(Connector::new).transpose()?;
    let mut failure = "it has no address".to_owned();
    for address in addresses {
        let address = SocketAddr::new(address, remote.url.port);
        match fetch_from(remote, connector.as_ref(), address).await {
            Ok(fetched) => return Ok(fetched),
            Err(reason) => failure = reason,
        }
    }
    Err(failure)
}

async fn fetch_from(
    remote: &Remote,
    connector: Option<&Connector>,
    address: SocketAddr,
) -> Result<Fetched, String> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| "cannot connect in time".to_owned())?;
    let stream = stream.map_err(|error| error.to_string())?;
    match connector {
        None => get(remote, stream).await,
        Some(connector) => {
            let stream = connector.connect_tokio(&remote.url.host, stream).await;
            get(remote, stream.map_err(|error| format!("TLS: {error}"))?).await
        }
    }
}

async fn get<S>(remote: &Remote, stream: S) -> Result<Fetched, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let told = |error: hyper::Error| error.to_string();
    let request = Request::get(&remote.url.target)
        .header(header::HOST, &remote.url.authority)
        .header(header::USER_AGENT, concat!("gateway/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    // Ends with this.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let response = sender.send_request(request).await.map_err(told)?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answered {}", response.status().as_u16()));
    }
    let max_age = max_age(response.headers());
    let set = to_bytes(Body::new(response.into_body()), SET_BYTES_MAX).await;
    let set = set.map_err(|_| {
        format!("its answer broke off, or is larger than {} MiB", SET_BYTES_MAX >> 20)
    })?;
    Ok(Fetched { set, max_age })
}

/// RFC 9111 §5.2.2.1. What is to count for no time counts for as long as is configured.
fn max_age(fields: &HeaderMap) -> Option<Duration> {
    let values = fields.get_all(header::CACHE_CONTROL).into_iter();
    let mut directives = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|directive| directive.trim().to_ascii_lowercase()));
    let seconds = directives.find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok());
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_counts() {
        for (value, expected) in [
            ("public, max-age=300, must-revalidate", Some(300)),
            ("Max-Age=7", Some(7)),
            ("max-age=0", None),
            ("no-store", None),
            ("max-age=soon, s-maxage=5", None),
        ] {
            let fields = [(header::CACHE_CONTROL, value.parse().unwrap())].into_iter().collect();
            assert_eq!(max_age(&fields), expected.map(Duration::from_secs), "{value}");
        }
    }
}
