//! The right to answer one request. Answering uses it up, so a request is answered once.

use std::borrow::Cow;
use std::io;
use std::time::SystemTime;

use bytes::BytesMut;

use super::context::{Context, Request, add};
use super::{Error, Resources};
use crate::http::accept::prefers_json;
use crate::http::edits::Edits;
use crate::http::encode::{self, Answer};
use crate::http::forward::{self, ResponseShape};
use crate::http::head::{Method, ResponseHead, Version, values};
use crate::http::headers::Name;
use crate::net::{Buffer, Pace, Writer};

/// Answers one request.
pub struct Responder<'a> {
    writer: &'a mut Writer,
    request: (Method, Version),
    resources: &'a Resources,
    /// Whether an interim response has gone out.
    begun: bool,
}

impl<'a> Responder<'a> {
    /// The right to answer `request` on `writer`.
    pub fn new(writer: &'a mut Writer, request: &Request<'_>, resources: &'a Resources) -> Self {
        let request = (request.head.method, request.head.version);
        Self { writer, request, resources, begun: false }
    }

    /// Whether the client has been sent nothing, so that another endpoint may answer instead.
    pub fn is_silent(&self) -> bool {
        !self.begun
    }

    /// The version the client speaks.
    pub fn version(&self) -> Version {
        self.request.1
    }

    /// Passes on an interim response, which answers nothing yet. Clients of HTTP/1.0 know none
    /// (RFC 9110 §15.2).
    ///
    /// # Errors
    /// When the client is gone or does not read.
    pub async fn interim(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        context: &Context,
    ) -> Result<(), Error> {
        if self.version() == Version::Http10 {
            return Ok(());
        }
        let mut out = BytesMut::new();
        forward::interim_response(&mut out, head, bytes, &context.response_edits.borrow());
        self.begun = true;
        let gap = self.resources.timeouts.body;
        self.writer.write_all(&mut Buffer::from(out), gap).await.map_err(client_error)
    }

    /// Writes the head of the final response into `out`.
    pub fn encode(
        &self,
        out: &mut BytesMut,
        head: &ResponseHead,
        bytes: &[u8],
        shape: ResponseShape,
        context: &Context,
    ) {
        let mut date = self.resources.date.borrow_mut();
        let date = date.at(SystemTime::now());
        let edits = context.response_edits.borrow();
        forward::response(out, head, bytes, shape, self.request, date, &edits);
    }

    /// Begins the final response, whose head and body may now be written.
    pub fn start(self, status: u16, context: &Context) -> ResponseWriter<'a> {
        context.status.set(status);
        ResponseWriter { writer: self.writer, pace: self.resources.pace() }
    }

    /// Answers with a status, and with its name, or its page, where there is no other content.
    ///
    /// # Errors
    /// When the client is gone or does not read.
    pub async fn answer(
        self,
        status: u16,
        content: Option<Content<'_>>,
        persistent: bool,
        request: &Request<'_>,
        context: &Context,
    ) -> Result<(), Error> {
        context.status.set(status);
        let (content_type, body) = match content {
            Some(Content { content_type, body }) => (content_type, Cow::Owned(body)),
            None => {
                let json = prefers_json(values(&request.head.fields, request.bytes, Name::Accept));
                self.resources.pages.body(status, json, request.client.request_id)
            }
        };
        let (method, version) = self.request;
        let with_body = method != Method::Head;
        if with_body {
            add(&context.bytes_out, body.len());
        }
        let edits = context.response_edits.take();
        let answer = Answer {
            status,
            persistent,
            version,
            with_body,
            content_type,
            body: &body,
            edits: &edits,
        };
        write(self.writer, self.resources, answer).await
    }
}

/// What an answer of the gateway's own says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// What it is.
    pub content_type: &'a str,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// Writes a response that has begun.
#[derive(Debug)]
pub struct ResponseWriter<'a> {
    writer: &'a mut Writer,
    pace: Pace,
}

impl ResponseWriter<'_> {
    /// Writes all that `buffer` holds.
    ///
    /// # Errors
    /// When the client is gone or reads too slowly.
    pub async fn write(&mut self, buffer: &mut Buffer) -> Result<(), Error> {
        self.writer.write_paced(buffer, &mut self.pace).await.map_err(client_error)
    }

    /// Promises that the connection ends right after the next write.
    pub fn last(&mut self) {
        self.writer.last();
    }

    /// What it writes on.
    pub fn writer(&self) -> &Writer {
        self.writer
    }

    /// Tells the client that no more will come.
    pub fn finish(&mut self) {
        self.writer.finish();
    }
}

/// Answers what never became a request, because its head was refused or did not come.
///
/// # Errors
/// When the client is gone or does not read.
pub async fn refuse(writer: &mut Writer, resources: &Resources, status: u16) -> Result<(), Error> {
    let (content_type, body) = resources.pages.body(status, false, b"");
    let version = Version::Http11;
    let answer = Answer {
        status,
        persistent: false,
        version,
        with_body: true,
        content_type,
        body: &body,
        edits: &Edits::default(),
    };
    write(writer, resources, answer).await
}

async fn write(
    writer: &mut Writer,
    resources: &Resources,
    answer: Answer<'_>,
) -> Result<(), Error> {
    if !answer.persistent {
        writer.last();
    }
    let mut out = BytesMut::with_capacity(256 + answer.body.len());
    encode::answer(&mut out, answer, resources.date.borrow_mut().at(SystemTime::now()));
    let gap = resources.timeouts.body;
    writer.write_all(&mut Buffer::from(out), gap).await.map_err(client_error)
}

fn client_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::ClientStalled,
        _ => Error::ClientGone,
    }
}
