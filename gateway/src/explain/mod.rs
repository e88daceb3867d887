//! `gateway explain`: what would become of a request, and why. Asks the same code that serves requests,
//! without a running gateway and without sending anything.

mod policies;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::action::compose::{Compose, Part};
use crate::action::mirror::Mirror;
use crate::action::split::Split;
use crate::action::{Action, Fallback};
use crate::admission::{Networks, Treatment, lists, unix_now};
use crate::config::{Config, Listener, Route};
use crate::document::units::shown_bytes;
use crate::exchange::template::Escape;
use crate::exchange::{Context, Identity, Request};
use crate::http::ambiguity::Ambiguities;
use crate::http::forward::Client;
use crate::http::framing::{self, Framing};
use crate::http::head::RequestHead;
use crate::http::parse::{self, HeadLimits, Scan};
use crate::http::target;
use crate::routing::Facts;
use crate::tls::ClientCertificate;
use crate::upstream::{Pending, Probe, Spec};

/// A request as a person describes it.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its method.
    pub method: String,
    /// As `https://host:port/path?query`.
    pub url: String,
    /// Fields as `Name: value`.
    pub fields: Vec<String>,
    /// Where it comes from.
    pub source: IpAddr,
    /// The certificate its client has shown, if it has.
    pub certificate: Option<ClientCertificate>,
}

/// Explains what becomes of a request.
///
/// # Errors
/// When the URL is none.
pub fn explain(config: &Config, question: &Question) -> Result<String, String> {
    let url = Url::parse(&question.url)?;
    let mut lines = Lines::default();
    let Some(listener) = lines.listener(config, &url) else { return Ok(lines.0) };
    if config.xdp.is_some() {
        let (said, ends) = connection(config, listener, question.source);
        lines.say("source", said);
        if ends {
            return Ok(lines.0);
        }
    }
    let text = question.text(&url);
    let mut head = RequestHead::default();
    let limits = HeadLimits {
        bytes: config.limits.head_bytes,
        start_line: config.limits.request_line_bytes,
        fields: config.limits.fields,
        underscores: config.limits.underscores,
    };
    let bytes = text.as_bytes();
    let read = parse::request(bytes, &mut Scan::default(), limits, &mut head);
    let framing = read.and_then(|_| framing::request(&head, bytes));
    let framing = match framing {
        Ok(framing) => framing,
        Err(reject) => {
            lines.say("answer", format!("{}: {}", reject.status(), reject.reason()));
            return Ok(lines.0);
        }
    };
    let identity = Identity::default();
    let request = question.request(&url, &head, bytes, framing, &identity);
    lines.request(config, listener, &request);
    Ok(lines.0)
}

/// What becomes of a connection from `source`, and whether that is the end of it.
fn connection(config: &Config, listener: &Listener, source: IpAddr) -> (String, bool) {
    let sources = &config.sources;
    let mut list = lists::implied();
    list.extend(sources.list.iter().cloned());
    let mut networks = Networks::default();
    for entry in lists::live(&list, unix_now()) {
        networks.insert(entry.network, entry);
    }
    let (class, by) = match networks.find(source) {
        None => (listener.class, String::new()),
        Some(entry) => {
            let comment = match entry.comment.as_str() {
                "" => String::new(),
                comment => format!(", {comment}"),
            };
            let by = format!(" by {} ({}{comment})", entry.network, entry.origin);
            match entry.treatment {
                Treatment::Allow => return (format!("{source}: allowed{by}"), false),
                Treatment::Deny | Treatment::Ban if sources.enforce_deny => {
                    return (format!("{source}: denied{by}"), true);
                }
                Treatment::Deny | Treatment::Ban => {
                    return (format!("{source}: denied{by}, which is only counted"), false);
                }
                Treatment::Class(class) => (class, by),
            }
        }
    };
    let Some(limits) = sources.classes.get(usize::from(class)) else {
        return (source.to_string(), false);
    };
    let name = if class == 0 { String::new() } else { format!(" of class {:?}", limits.name) };
    let counted = |enforced: bool| if enforced { "" } else { ", which is only counted" };
    let (rate, burst) = (limits.connection_rate, limits.connection_burst);
    let mut text = format!("{source}: {rate}/s new connections after {burst}");
    text += counted(limits.enforce_rate);
    if limits.connections_max > 0 {
        let counted = counted(limits.enforce_connections);
        text += &format!("; {} open at once{counted}", limits.connections_max);
    }
    (text + &name + &by, false)
}

impl Question {
    fn text(&self, url: &Url<'_>) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, url.target);
        let is_host = |field: &String| field.to_ascii_lowercase().starts_with("host:");
        if !self.fields.iter().any(is_host) {
            let _ = write!(text, "Host: {}\r\n", url.authority);
        }
        for field in &self.fields {
            let _ = write!(text, "{field}\r\n");
        }
        text + "\r\n"
    }

    fn request<'a>(
        &'a self,
        url: &Url<'_>,
        head: &'a RequestHead,
        bytes: &'a [u8],
        framing: Framing,
        identity: &'a Identity,
    ) -> Request<'a> {
        Request {
            head,
            bytes,
            framing,
            persistent: true,
            upgrade: false,
            client: Client {
                chain: "",
                scheme: if url.is_https { "https" } else { "http" },
                host: None,
                trusted: false,
                request_id: b"",
                certificate: b"",
            },
            received: Instant::now(),
            route: "",
            identity,
            source: SocketAddr::new(self.source, 0),
            destination: None,
            certificate: self.certificate.as_ref().filter(|_| url.is_https),
        }
    }
}

struct Url<'a> {
    is_https: bool,
    authority: &'a str,
    port: u16,
    target: String,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no URL: write \"https://api.example.com/orders/7\"");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let host = target::host(authority.as_bytes()).map_err(|_| wrong())?;
        let port = authority.get(host.len()..).and_then(|port| port.strip_prefix(':'));
        let default = if is_https { 443 } else { 80 };
        let port = port.map_or(Ok(default), str::parse).map_err(|_| wrong())?;
        Ok(Self { is_https, authority, port, target })
    }
}

/// What has been said so far.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn say(&mut self, what: &str, text: impl AsRef<str>) {
        let _ = writeln!(self.0, "{what:<10} {}", text.as_ref());
    }

    /// The listener whose port it is; where none is, one that speaks the same.
    fn listener<'c>(&mut self, config: &'c Config, url: &Url<'_>) -> Option<&'c Listener> {
        let speaks = |listener: &&Listener| listener.tls.is_some() == url.is_https;
        let at_port = |listener: &&Listener| listener.address.port() == url.port;
        let all = &config.listeners;
        let found = all.iter().find(|listener| at_port(listener) && speaks(listener));
        let wrong_scheme = || all.iter().find(|listener| at_port(listener));
        let elsewhere = || all.iter().find(speaks);
        let (listener, note) = match found {
            Some(listener) => (listener, ""),
            None => match wrong_scheme() {
                Some(listener) if url.is_https => {
                    let at = listener.address;
                    self.say("listener", format!("{at} speaks plain HTTP: nobody is answered"));
                    return None;
                }
                Some(listener) => {
                    self.say("listener", format!("{} speaks TLS: 400", listener.address));
                    return None;
                }
                None => match elsewhere() {
                    Some(listener) => (listener, ", though it has another port"),
                    None => {
                        let kind = if url.is_https { "TLS" } else { "plain HTTP" };
                        self.say("listener", format!("none speaks {kind}"));
                        return None;
                    }
                },
            },
        };
        let tls = listener.tls.and_then(|index| config.tls.get(index));
        let tls = tls.map(|tls| format!(" with tls {:?}", tls.name)).unwrap_or_default();
        self.say("listener", format!("{}{tls}{note}", listener.address));
        Some(listener)
    }

    fn request(&mut self, config: &Config, listener: &Listener, request: &Request<'_>) {
        let context = Context::default();
        if !self.policies(config, &listener.policies, request, &context) {
            return;
        }
        if let Some(port) = listener.redirect.filter(|_| request.client.scheme == "http") {
            self.say("redirect", format!("308 to HTTPS at port {port}"));
            return;
        }
        let Some((index, route)) = self.route(config, request) else { return };
        let ambiguity = request.head.target.ambiguities.beyond(route.allow_in_path);
        if let Some(ambiguity) = ambiguity {
            let hint = "allow_in_path of the route would take it";
            self.say("answer", format!("400: {}; {hint}", ambiguity.reason()));
            return;
        }
        let name = format!("{}{}", route.host, route.path);
        let request = &Request { route: &name, ..*request };
        if !self.policies(config, &route.policies, request, &context) {
            return;
        }
        let limit = route.body_bytes.unwrap_or(config.limits.body_bytes);
        let limit = context.body_bytes_max.get().map_or(limit, |own| own.min(limit));
        match request.framing {
            Framing::Length(length) if length > limit => {
                self.say("answer", format!("413: the body has more than {}", shown_bytes(limit)));
                return;
            }
            _ => self.say("limits", format!("a body of {} at most", shown_bytes(limit))),
        }
        self.action(config, index, route, request, &context);
    }

    /// The route it takes, after those that looked better.
    fn route<'c>(
        &mut self,
        config: &'c Config,
        request: &Request<'_>,
    ) -> Option<(usize, &'c Route)> {
        let Request { head, bytes, source, .. } = *request;
        let authority = head.authority.map(|authority| authority.of(bytes));
        let host = authority.and_then(|authority| target::host(authority).ok());
        let facts = Facts { head, bytes, source: source.ip() };
        let table = config.table(|index, route| (index, route.conditions.clone()));
        let mut asked = Vec::new();
        let found = table.lookup(host, head.target.path(bytes), |(index, conditions)| {
            let unmet = conditions.unmet(&facts);
            asked.push((*index, unmet.map(|unmet| unmet.to_string())));
            asked.last().is_some_and(|(_, unmet)| unmet.is_none())
        });
        let found = found.map(|(index, _)| *index);
        let described = |index: usize| {
            let route = config.routes.get(index)?;
            let mut text = format!("routes[{index}] {}{}", route.host, route.path);
            if route.priority != 0 {
                let _ = write!(text, ", priority {}", route.priority);
            }
            Some(text)
        };
        for (index, unmet) in &asked {
            if let (Some(text), Some(unmet)) = (described(*index), unmet) {
                self.say("not", format!("{text}: {unmet}"));
            }
        }
        match found.and_then(|index| Some((index, config.routes.get(index)?, described(index)?))) {
            Some((index, route, text)) => {
                self.say("route", text);
                Some((index, route))
            }
            None => {
                let by_method = asked.iter().any(|(_, unmet)| {
                    unmet.as_deref().is_some_and(|unmet| unmet.starts_with("method"))
                });
                let status = if by_method { "405, with Allow" } else { "404" };
                self.say("route", format!("none: {status}"));
                None
            }
        }
    }

    fn action(
        &mut self,
        config: &Config,
        index: usize,
        route: &Route,
        request: &Request<'_>,
        context: &Context,
    ) {
        let split = match &route.action {
            Action::Forward(split) => split,
            Action::Respond(respond) => {
                self.say("answer", format!("{}, by routes[{index}].respond", respond.status));
                return;
            }
            Action::Compose(compose) => {
                return self.compose(config, compose, (request, context), route);
            }
            Action::Redirect(redirect) => {
                let to = redirect.to.render(request, context, route.path.pattern(), Escape::Uri);
                let to = String::from_utf8_lossy(&to);
                self.say("answer", format!("{}, to {to}", redirect.status));
                return;
            }
        };
        let rewritten = route.rewrite.apply(request, context, &route.path);
        if let Some(path) = &rewritten.path {
            let shown = String::from_utf8_lossy(path);
            self.say("path", format!("{shown}, by routes[{index}].rewrite"));
            if let Some(ambiguity) = Ambiguities::of(path).beyond(route.allow_in_path) {
                self.say("answer", format!("400: {}", ambiguity.reason()));
                return;
            }
        }
        if let Some(host) = &rewritten.host {
            self.say("host", String::from_utf8_lossy(host));
        }
        self.upstreams(config, split, request);
        if let Some(timeout) = route.timeout.or(config.timeouts.request) {
            self.say("timeout", format!("{timeout:?} for the whole exchange"));
        }
        if let Some(Mirror { upstream, share }) = route.mirror {
            let name = config.upstreams.get(upstream).map(|spec| spec.name.as_str());
            self.say("mirror", format!("{share}% also to {}", name.unwrap_or_default()));
        }
        match &route.fallback {
            Some(Fallback::Forward(upstream)) => {
                let name = config.upstreams.get(*upstream).map(|spec| spec.name.as_str());
                self.say("fallback", name.unwrap_or_default());
            }
            Some(Fallback::Respond(respond)) => {
                self.say("fallback", format!("{}, by routes[{index}].fallback", respond.status));
            }
            None => {}
        }
    }

    /// The parts of an answer, and what each waits for.
    fn compose(
        &mut self,
        config: &Config,
        compose: &Compose,
        (request, context): (&Request<'_>, &Context),
        route: &Route,
    ) {
        for part in &compose.parts {
            let find = |reference: &str| Some(format!("{{part:{reference}}}").into_bytes());
            let pattern = route.path.pattern();
            let path = part.path.render_with(request, context, pattern, Escape::Path, &find);
            let path = String::from_utf8_lossy(&path);
            let upstream = config.upstreams.get(part.upstream);
            let upstream = upstream.map(|spec| spec.name.as_str()).unwrap_or_default();
            let Part { name, timeout, optional, .. } = part;
            let mut text = format!("{name}: GET {path} of {upstream} in {timeout:?}");
            text += if *optional { ", or null" } else { "" };
            let mut needs: Vec<_> = part.needs().collect();
            needs.dedup();
            if !needs.is_empty() {
                let _ = write!(text, ", after {}", needs.join(", "));
            }
            self.say("part", text);
        }
        if let Some(timeout) = route.timeout.or(config.timeouts.request) {
            self.say("timeout", format!("{timeout:?} for the whole exchange"));
        }
    }

    /// What keeps an upstream's endpoints well, beyond the defaults.
    fn health(&mut self, spec: &Spec) {
        if let Some(probe) = &spec.health {
            let asked = match &probe.path {
                Some(path) => format!("GET {path}"),
                None => "a connection".to_owned(),
            };
            let Probe { interval, rise, fall, .. } = probe;
            let rule = format!("down after {fall} that fail, up after {rise}");
            self.say("health", format!("{asked} every {interval:?}: {rule}"));
        }
        if let Some(max) = spec.connections_max {
            let Pending { max: pending, timeout } = spec.pending;
            let waiting = format!("{pending} more wait for {timeout:?}");
            self.say("connections", format!("{max} to each endpoint at most, {waiting}"));
        }
        if let Some(percent) = spec.hedge {
            self.say("hedge", format!("another is asked, too, of those slower than {percent}%"));
        }
    }

    fn upstreams(&mut self, config: &Config, split: &Split, request: &Request<'_>) {
        let total: u64 = split.shares.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let own = split.sticky.as_ref().and_then(|sticky| split.at(sticky.point(request)?));
        for (upstream, weight) in &split.shares {
            let Some(spec) = config.upstreams.get(*upstream) else { continue };
            let share = match (own, &split.shares[..]) {
                (_, [_]) => String::new(),
                (Some(own), _) if own == *upstream => ", which it stays with".to_owned(),
                (Some(_), _) => continue,
                (None, _) => format!(", {weight} of {total}"),
            };
            let endpoints: Vec<_> = spec.endpoints.iter().map(ToString::to_string).collect();
            let (name, balance) = (&spec.name, spec.balance.name());
            let endpoints = endpoints.join(", ");
            self.say("upstream", format!("{name}{share}: {balance} among {endpoints}"));
            self.health(spec);
        }
    }
}
