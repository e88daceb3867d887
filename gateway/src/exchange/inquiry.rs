//! Questions about a request that are put to an upstream before it is let pass. Policies ask them, which know
//! nothing of upstreams but this.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::LocalBoxFuture;

use super::{Error, Request};
use crate::http::edits::Edits;
use crate::http::head::ResponseHead;

/// What of the client's request is about the one answer it gets, or about a body, and so not for who else is
/// asked by GET on its behalf.
pub const LEFT_OUT: [&str; 9] = [
    "content-encoding",
    "content-language",
    "content-type",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
];

/// A GET with the fields of a request.
#[derive(Debug)]
pub struct Inquiry<'a> {
    /// The name of the upstream that is asked.
    pub upstream: &'a str,
    /// What it is about.
    pub request: &'a Request<'a>,
    /// What is asked for, a path with its query.
    pub target: &'a [u8],
    /// What is changed about the fields.
    pub edits: &'a Edits,
    /// The most the answer's body may have.
    pub body_bytes_max: usize,
    /// How long it may take.
    pub timeout: Duration,
}

/// What the upstream says.
#[derive(Debug)]
pub struct Reply {
    /// The head, of [`Self::bytes`].
    pub head: ResponseHead,
    /// What the head was parsed from.
    pub bytes: BytesMut,
    /// The body, decoded, if it came whole, in time and within its bounds.
    pub body: Result<Vec<u8>, Error>,
}

/// Who can be asked.
pub trait Upstreams {
    /// Asks, also another endpoint if one fails. May be dropped.
    ///
    /// # Errors
    /// When no answer's head came whole and in time, or the request cannot be passed on.
    fn ask<'a>(&'a self, inquiry: Inquiry<'a>) -> LocalBoxFuture<'a, Result<Reply, Error>>;
}
