//! Why an exchange failed: whose side it was, which status says so, whether a retry is safe.

use crate::http::Reject;
use crate::telemetry::metrics::Offence;
use crate::tls::Failure;

/// Whose doing a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// An endpoint's.
    Upstream,
    /// The gateway's own decision.
    Gateway,
}

/// A failed exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request breaks a rule.
    Rejected(Reject),
    /// A connection did not begin with the PROXY header it has to begin with.
    ProxyHeader,
    /// Client and gateway did not agree on TLS.
    Handshake(Failure),
    /// The request's head did not arrive in time.
    HeadTimeout,
    /// The request's body stalled.
    BodyTimeout,
    /// The request's body exceeds the limit.
    BodyTooLarge,
    /// The client closed or broke its connection before its request or its response was whole.
    ClientGone,
    /// The client did not take its response.
    ClientStalled,
    /// No route matches.
    NoRoute,
    /// Routes match, but for other methods.
    MethodNotAllowed,
    /// A policy does not let the request pass.
    Denied(Denial),
    /// No endpoint is up and accepted a connection.
    Unavailable,
    /// All endpoints have as many requests as they may have, and as many wait as may, or for too long.
    Overloaded,
    /// No endpoint accepted a connection in time.
    ConnectTimeout,
    /// No endpoint agreed on TLS, or none could prove who it is.
    UpstreamTls,
    /// A kept connection turned out to be dead before it answered: nothing was processed.
    Stale,
    /// An endpoint closed or broke its connection before it answered.
    UpstreamGone,
    /// An endpoint's answer is not HTTP, or not HTTP that can be passed on.
    BadResponse(Reject),
    /// An endpoint did not answer in time.
    ResponseTimeout,
    /// An endpoint broke off in the middle of its response.
    ResponseCut,
    /// An endpoint stalled in the middle of its response.
    ResponseStalled,
    /// The exchange took longer than its route allows.
    OutOfTime,
    /// An endpoint answered that it cannot, and another is asked.
    Refused,
    /// An answer that the gateway was to use is larger than it may be.
    AnswerTooLarge,
    /// An answer that the gateway was to use is not JSON.
    NotJson,
    /// An endpoint that the gateway asked has answered with this status.
    Answered(u16),
    /// An endpoint that the gateway asked has answered with a status that is nothing to the client.
    BadStatus,
    /// A value that the gateway was to ask with is missing, or cannot be used.
    NoValue,
    /// Neither side of a tunnel said anything for too long.
    TunnelSilent,
}

/// Why a policy does not let a request pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The client has shown no certificate.
    NoCertificate,
    /// The client has shown a certificate, but not one that is allowed here.
    OtherCertificate,
    /// The client asks more often than it may.
    TooOften,
    /// The client has more requests in flight than it may.
    TooManyInFlight,
    /// The client's address is not let in.
    Address,
    /// The method is not let in.
    Method,
    /// The body's kind is not let in.
    ContentType,
    /// The body is larger than is let in.
    BodyTooLarge,
    /// A field is missing that has to be there.
    MissingField,
    /// A rule matches it.
    Rule,
    /// The client is banned.
    Banned,
    /// The client has not said who it is.
    NoCredentials,
    /// The client has shown a key or a password that is nobody's.
    WrongCredentials,
    /// The client has shown a token that is not believed, and why.
    WrongToken(&'static str),
    /// The client has shown a token that has been right.
    ExpiredToken,
    /// The client has shown a token of a key that is not known, which may be new.
    UnknownKey,
    /// The client has shown a token that is not for this.
    MissingScope,
    /// There are no keys to verify tokens by.
    NoKeys,
    /// Too many passwords wait for being verified.
    TooManyPasswords,
    /// Nobody answers who could say whether the client may come in.
    Unanswered,
}

impl Denial {
    fn status(self) -> u16 {
        match self {
            Self::NoCertificate | Self::OtherCertificate => 403,
            Self::TooOften | Self::TooManyInFlight => 429,
            Self::Address | Self::Rule | Self::Banned => 403,
            Self::NoCredentials | Self::WrongCredentials => 401,
            Self::WrongToken(_) | Self::ExpiredToken | Self::UnknownKey => 401,
            Self::MissingScope => 403,
            Self::TooManyPasswords | Self::NoKeys | Self::Unanswered => 503,
            Self::Method => 405,
            Self::ContentType => 415,
            Self::BodyTooLarge => 413,
            Self::MissingField => 400,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::NoCertificate => "no client certificate",
            Self::OtherCertificate => "client certificate not allowed here",
            Self::TooOften => "rate limit",
            Self::TooManyInFlight => "too many requests in flight",
            Self::Address => "address not let in",
            Self::Method => "method not let in",
            Self::ContentType => "content type not let in",
            Self::BodyTooLarge => "body larger than is let in",
            Self::MissingField => "required field missing",
            Self::Rule => "matches a rule",
            Self::Banned => "client is banned",
            Self::NoCredentials => "no credentials",
            Self::WrongCredentials => "wrong credentials",
            Self::WrongToken(why) => why,
            Self::ExpiredToken => "token has expired",
            Self::UnknownKey => "token is signed by an unknown key",
            Self::MissingScope => "token lacks a scope",
            Self::NoKeys => "no keys to verify tokens by",
            Self::TooManyPasswords => "too many passwords to verify",
            Self::Unanswered => "nobody says whether it may come in",
        }
    }
}

impl Error {
    /// The one place where a failure becomes a status. `None`: nobody is left to be told, or the
    /// response has begun; closing the connection is the answer.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Rejected(reject) => Some(reject.status()),
            Self::Handshake(Failure::PlainHttp) => Some(400),
            Self::Denied(denial) => Some(denial.status()),
            Self::NoRoute => Some(404),
            Self::MethodNotAllowed => Some(405),
            Self::HeadTimeout | Self::BodyTimeout => Some(408),
            Self::BodyTooLarge => Some(413),
            Self::Stale | Self::UpstreamTls | Self::UpstreamGone | Self::BadResponse(_) => {
                Some(502)
            }
            Self::AnswerTooLarge | Self::NotJson | Self::BadStatus | Self::NoValue => Some(502),
            Self::Answered(status) => Some(status),
            Self::Unavailable | Self::Overloaded | Self::Refused => Some(503),
            Self::ConnectTimeout | Self::ResponseTimeout | Self::OutOfTime => Some(504),
            Self::ProxyHeader
            | Self::Handshake(_)
            | Self::ClientGone
            | Self::ClientStalled
            | Self::ResponseCut
            | Self::ResponseStalled
            | Self::TunnelSilent => None,
        }
    }

    /// Whether it is for want of an upstream that answers.
    pub fn may_fall_back(self) -> bool {
        self.side() == Side::Upstream || matches!(self, Self::Overloaded | Self::OutOfTime)
    }

    /// Whether nothing of the request has reached an endpoint.
    pub fn is_unsent(self) -> bool {
        matches!(
            self,
            Self::Unavailable | Self::Overloaded | Self::ConnectTimeout | Self::UpstreamTls
        )
    }

    /// After how many seconds it may be worth to try again, if time helps (RFC 9110 §10.2.3).
    pub fn retry_after(self) -> Option<&'static str> {
        match self {
            Self::Unavailable
            | Self::Refused
            | Self::Denied(Denial::NoKeys | Denial::Unanswered) => Some("5"),
            Self::Overloaded | Self::Denied(Denial::TooManyPasswords) => Some("1"),
            _ => None,
        }
    }

    /// Whose doing it is.
    pub fn side(self) -> Side {
        match self {
            Self::Rejected(_)
            | Self::ProxyHeader
            | Self::Handshake(_)
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::BodyTooLarge
            | Self::ClientGone
            | Self::ClientStalled => Side::Downstream,
            Self::NoRoute
            | Self::MethodNotAllowed
            | Self::Denied(_)
            | Self::Overloaded
            | Self::OutOfTime
            | Self::AnswerTooLarge
            | Self::NotJson
            | Self::Answered(_)
            | Self::BadStatus
            | Self::NoValue
            | Self::TunnelSilent => Side::Gateway,
            Self::Unavailable
            | Self::ConnectTimeout
            | Self::Refused
            | Self::UpstreamTls
            | Self::Stale
            | Self::UpstreamGone
            | Self::BadResponse(_)
            | Self::ResponseTimeout
            | Self::ResponseCut
            | Self::ResponseStalled => Side::Upstream,
        }
    }

    /// Which rule the client broke, if it did.
    pub fn offence(self) -> Option<Offence> {
        match self {
            Self::Rejected(Reject::TargetTooLong) => Some(Offence::RequestLineTooLong),
            Self::Rejected(Reject::HeadTooLarge) => Some(Offence::HeadTooLarge),
            Self::Rejected(Reject::ExtensionsTooLarge | Reject::TrailersTooLarge) => {
                Some(Offence::ChunksTooLarge)
            }
            Self::Rejected(_) => Some(Offence::Malformed),
            Self::BodyTooLarge => Some(Offence::BodyTooLarge),
            Self::HeadTimeout => Some(Offence::SlowHead),
            Self::BodyTimeout => Some(Offence::SlowBody),
            Self::ClientStalled => Some(Offence::SlowRead),
            Self::ProxyHeader => Some(Offence::ProxyHeader),
            Self::Denied(Denial::NoCertificate | Denial::OtherCertificate) => {
                Some(Offence::Certificate)
            }
            Self::Denied(Denial::TooOften | Denial::TooManyInFlight) => Some(Offence::RateLimit),
            Self::Denied(Denial::Address | Denial::Rule) => Some(Offence::Access),
            Self::Denied(Denial::WrongCredentials | Denial::WrongToken(_)) => {
                Some(Offence::Credentials)
            }
            Self::Denied(Denial::BodyTooLarge) => Some(Offence::BodyTooLarge),
            // What a client may do in good faith is none: to leave, or not to trust us.
            Self::Handshake(Failure::Malformed | Failure::PlainHttp | Failure::Timeout) => {
                Some(Offence::Handshake)
            }
            Self::Handshake(
                Failure::NoCertificate
                | Failure::CertificateExpired
                | Failure::CertificateRevoked
                | Failure::CertificateUntrusted,
            ) => Some(Offence::Certificate),
            _ => None,
        }
    }

    /// What happened, for the access log.
    pub fn message(self) -> &'static str {
        match self {
            Self::Rejected(reject) => reject.reason(),
            Self::ProxyHeader => "no valid PROXY header from a trusted proxy",
            Self::Handshake(failure) => failure.message(),
            Self::HeadTimeout => "head not received in time",
            Self::BodyTimeout => "body stalled",
            Self::BodyTooLarge => "body too large",
            Self::ClientGone => "client closed the connection",
            Self::ClientStalled => "client stopped reading",
            Self::NoRoute => "no route",
            Self::MethodNotAllowed => "method not allowed",
            Self::Denied(denial) => denial.message(),
            Self::Unavailable => "no endpoint accepts connections",
            Self::Overloaded => "endpoints are busy",
            Self::ConnectTimeout => "connect timed out",
            Self::UpstreamTls => "no TLS with the upstream",
            Self::Stale => "kept upstream connection was dead",
            Self::UpstreamGone => "upstream closed the connection before its response",
            Self::BadResponse(reject) => reject.reason(),
            Self::ResponseTimeout => "upstream did not respond in time",
            Self::ResponseCut => "upstream broke off its response",
            Self::ResponseStalled => "upstream stalled in its response",
            Self::AnswerTooLarge => "upstream's answer is too large",
            Self::NotJson => "upstream's answer is not JSON",
            Self::Answered(_) | Self::BadStatus => "upstream answered with another status than 2xx",
            Self::NoValue => "a value to ask with is missing",
            Self::OutOfTime => "the route's timeout passed",
            Self::Refused => "upstream answered that it cannot",
            Self::TunnelSilent => "tunnel was silent",
        }
    }
}
