//! What listeners and routes ask of requests beyond where they go, and add to their answers. A policy is
//! a file here and a line in `policies!`; ARCHITECTURE.md walks through one.

#![expect(clippy::disallowed_types, reason = "some states are shared by all workers")]

mod access;
pub(crate) mod any;
pub mod api_key;
mod basic;
mod caller;
mod client_certificate;
mod concurrency;
mod cookies;
mod cors;
mod file;
mod forward_auth;
mod gcra;
mod headers;
mod hsts;
pub mod jwt;
mod key;
mod networks;
mod password_hash;
mod place;
mod rate_limit;
mod rules;
mod security_headers;
mod slots;
mod tally;
#[cfg(test)]
mod testing;
mod verifiers;

use std::any::Any;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::{Either, LocalBoxFuture, ready, select};

use crate::document::section::Section;
use crate::exchange::inquiry::Upstreams;
use crate::exchange::{Context, Error, Request};
use crate::net::Reader;
use crate::telemetry::metrics;

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The next one is asked.
    Continue,
    /// It is answered with this status, and with the fields the policy has added.
    Answer(u16),
    /// It is refused.
    Refuse(Error),
    /// That takes time: [`Policy::wait`] says it.
    Wait,
}

/// Looks at requests. What it changes about the request on its way to the origin, and about the answer,
/// it says in [`Context`]; what is to end with the exchange it [holds](Context::hold) there.
pub trait Policy {
    /// Looks at one whose head has come. Waits for nothing and does no I/O.
    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict;

    /// Takes out of a request what nobody but this policy may say of its client, and out of the log the
    /// secrets it looks for. Part of [`Self::request`], and asked for by itself where several policies find
    /// out who somebody is and another one does.
    fn strip(&self, _request: &Request<'_>, _context: &Context) {}

    /// Keeps the secrets it looks for from the origin. Part of [`Self::request`] in the same way; but where
    /// another one finds out, only then, as that may look for the same.
    fn hide(&self, _request: &Request<'_>, _context: &Context) {}

    /// It has let a request pass, and so have those it was asked together with.
    fn passed(&self, _request: &Request<'_>) {}

    /// By which of its settings it decides about a request, for who asks why; empty where what it does says it all.
    fn rule(&self, _request: &Request<'_>) -> String {
        String::new()
    }

    /// Goes on where [`Self::request`] has said [`Verdict::Wait`], and may ask upstreams. It must end by itself, and is dropped
    /// when the client leaves.
    fn wait<'a>(
        &'a self,
        _request: &'a Request<'_>,
        _context: &'a Context,
        _upstreams: &'a dyn Upstreams,
    ) -> LocalBoxFuture<'a, Verdict> {
        Box::pin(ready(Verdict::Continue))
    }
}

/// What all workers share of a policy. It outlives the configuration if the policy's settings stay as
/// they are.
pub type Shared = Option<Arc<dyn Any + Send + Sync>>;

/// What a policy is made of, beside its settings.
pub struct Parts<'a> {
    /// What the configuration calls it.
    pub name: &'a str,
    /// What its settings have [shared](Settings::shared).
    pub shared: Shared,
    /// What the worker counts about it.
    pub counters: Arc<metrics::Policy>,
    /// What it counts about all.
    pub metrics: &'a metrics::Worker,
    /// The policies it is [made of](Settings::members).
    pub members: &'a [Asked],
}

/// Settings that a policy is made from.
trait Build: Sized + Clone {
    /// The files they are read from. Whoever changes one need not say so.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// The same with its files as they are now. Blocks.
    fn reread(&self) -> Result<Self, String> {
        Ok(self.clone())
    }

    /// The names of the policies it is made of.
    fn members(&self) -> &[String] {
        &[]
    }

    /// The name of the upstream it asks.
    fn upstream(&self) -> Option<&str> {
        None
    }

    /// What all workers are to share.
    fn shared(&self) -> Shared {
        None
    }

    /// The same with what can be kept of the state of a policy with other settings.
    fn shared_after(&self, _before: &Self, _state: &Shared) -> Shared {
        self.shared()
    }

    /// A worker's policy.
    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy>;
}

/// Most policies are their settings.
impl<P: Policy + Clone + 'static> Build for P {
    fn build(&self, _: &Parts<'_>) -> Rc<dyn Policy> {
        Rc::new(self.clone())
    }
}

/// The policies of a listener or a route, in the order they are asked.
#[derive(Clone, Default)]
pub struct Policies(Rc<[Asked]>);

/// A policy, and what is counted of it.
#[derive(Clone)]
pub struct Asked {
    policy: Rc<dyn Policy>,
    counters: Arc<metrics::Policy>,
}

/// All policies of a configuration as a worker has them, each once, whoever lists it.
pub struct Named(Vec<Asked>);

impl Named {
    /// Builds them of their names, their settings and what all workers share of each.
    pub fn new<'a>(
        policies: impl Iterator<Item = (&'a str, &'a Settings, Shared)>,
        metrics: &metrics::Worker,
    ) -> Self {
        let all: Vec<_> = policies.collect();
        let build = |(name, settings, shared): &(&str, &Settings, Shared), members: &[_]| {
            let (shared, counters) = (shared.clone(), metrics.policy(name));
            let parts = Parts { name, shared, counters: Arc::clone(&counters), metrics, members };
            Asked { policy: settings.build(&parts), counters }
        };
        // What is made of others comes after them.
        let single = all.iter().map(|one| one.1.members().is_empty().then(|| build(one, &[])));
        let single: Vec<_> = single.collect();
        let member = |name: &String| {
            let position = all.iter().position(|(own, ..)| own == name)?;
            single.get(position)?.clone()
        };
        let whole = |one: &(&str, &Settings, Shared)| {
            let members: Vec<_> = one.1.members().iter().filter_map(member).collect();
            build(one, &members)
        };
        let named = all.iter().zip(&single);
        Self(named.map(|(one, single)| single.clone().unwrap_or_else(|| whole(one))).collect())
    }

    /// Those at these positions, in this order.
    pub fn listed(&self, positions: &[usize]) -> Policies {
        Policies(positions.iter().filter_map(|at| self.0.get(*at).cloned()).collect())
    }

    /// What the one at a position says of the first request it sees.
    pub fn ask(
        &self,
        position: usize,
        request: &Request<'_>,
        context: &Context,
    ) -> Option<Verdict> {
        self.0.get(position).map(|asked| asked.policy.request(request, context))
    }

    /// By which of its settings it says so.
    pub fn rule(&self, position: usize, request: &Request<'_>) -> Option<String> {
        self.0.get(position).map(|asked| asked.policy.rule(request))
    }
}

impl Asked {
    /// It has let a request pass.
    fn pass(&self, request: &Request<'_>) {
        self.counters.passed.add(1);
        self.policy.passed(request);
    }
}

impl Policies {
    /// What they say of a request; the first that does not let it pass has the last word. `client` is
    /// watched while one takes its time.
    pub async fn request(
        &self,
        request: &Request<'_>,
        client: &Reader,
        context: &Context,
        upstreams: &dyn Upstreams,
    ) -> Verdict {
        for asked in self.0.iter() {
            let Asked { policy, counters } = asked;
            let verdict = match policy.request(request, context) {
                // Boxed, so that no other request has room for it.
                Verdict::Wait => {
                    Box::pin(wait(&**policy, request, client, context, upstreams)).await
                }
                verdict => verdict,
            };
            match verdict {
                Verdict::Continue | Verdict::Wait => asked.pass(request),
                Verdict::Answer(_) => counters.answered.add(1),
                Verdict::Refuse(_) => counters.refused.add(1),
            }
            if verdict != Verdict::Continue {
                return verdict;
            }
        }
        Verdict::Continue
    }
}

async fn wait(
    policy: &dyn Policy,
    request: &Request<'_>,
    client: &Reader,
    context: &Context,
    upstreams: &dyn Upstreams,
) -> Verdict {
    let watcher = client.watcher();
    match select(policy.wait(request, context, upstreams), pin!(watcher.broken())).await {
        Either::Left((verdict, _)) => verdict,
        Either::Right(_) => Verdict::Refuse(Error::ClientGone),
    }
}

/// Declares the policies there are, by the word that stands for each in a configuration, and which of them find
/// out who a client is.
macro_rules! policies {
    ($($kind:literal => $module:ident $($who:ident)?,)*) => {
        /// The settings of one policy.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(non_camel_case_types, reason = "each is named after its module")]
        pub enum Settings {
            $(
                #[doc = concat!("`kind = \"", $kind, "\"`")]
                $module($module::Settings),
            )*
        }

        /// The words that stand for them.
        pub const KINDS: &[&str] = &[$($kind),*];

        /// Those of policies that find out who a client is.
        pub const AUTHENTICATING: &[&str] = &[$($(policies!(@word $kind $who),)?)*];

        impl Settings {
            /// Reads the table of one of [`KINDS`]; `None` if that is none.
            pub(crate) fn read(kind: &str, table: &mut Section<'_>) -> Option<Self> {
                match kind {
                    $($kind => Some(Self::$module($module::Settings::read(table))),)*
                    _ => None,
                }
            }

            /// The word that stands for it.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$module(_) => $kind,)*
                }
            }

            /// Whether it finds out who a client is, and lets nobody in whom it does not know.
            pub fn authenticates(&self) -> bool {
                AUTHENTICATING.contains(&self.kind())
            }

            /// The names of the policies it is made of.
            pub fn members(&self) -> &[String] {
                match self {
                    $(Self::$module(settings) => settings.members(),)*
                }
            }

            /// The name of the upstream it asks.
            pub fn upstream(&self) -> Option<&str> {
                match self {
                    $(Self::$module(settings) => settings.upstream(),)*
                }
            }

            /// The files it is read from.
            pub fn files(&self) -> Vec<&Path> {
                match self {
                    $(Self::$module(settings) => settings.files(),)*
                }
            }

            /// The same with its files as they are now. Blocks.
            ///
            /// # Errors
            /// When one of them is wrong.
            pub fn reread(&self) -> Result<Self, String> {
                match self {
                    $(Self::$module(settings) => settings.reread().map(Self::$module),)*
                }
            }

            /// What all workers are to share of such a policy.
            pub fn shared(&self) -> Shared {
                match self {
                    $(Self::$module(settings) => settings.shared(),)*
                }
            }

            /// The same with what can be kept of the state of one with other settings.
            pub fn shared_after(&self, before: &Self, state: &Shared) -> Shared {
                match (self, before) {
                    $((Self::$module(settings), Self::$module(before)) => {
                        settings.shared_after(before, state)
                    })*
                    _ => self.shared(),
                }
            }

            /// A worker's policy.
            pub fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
                match self {
                    $(Self::$module(settings) => settings.build(parts),)*
                }
            }
        }
    };
    (@word $kind:literal authenticates) => { $kind };
}

impl Settings {
    /// What it counts together, if it counts.
    pub(crate) fn key(&self) -> Option<&key::Key> {
        match self {
            Self::concurrency(settings) => Some(settings.key()),
            Self::rate_limit(settings) => Some(settings.key()),
            _ => None,
        }
    }
}

policies! {
    "access" => access,
    "any" => any,
    "api_key" => api_key authenticates,
    "basic" => basic authenticates,
    "client_certificate" => client_certificate authenticates,
    "concurrency" => concurrency,
    "cookies" => cookies,
    "cors" => cors,
    "forward_auth" => forward_auth authenticates,
    "headers" => headers,
    "hsts" => hsts,
    "jwt" => jwt authenticates,
    "rate_limit" => rate_limit,
    "rules" => rules,
    "security_headers" => security_headers,
}
