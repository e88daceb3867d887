//! The right to answer one request. Answering uses it up, so a request is answered once.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;

use super::Error;
use super::context::{Context, Request};
use crate::http::encode::{self, Answer, DateCache};
use crate::http::forward::{self, ResponseShape};
use crate::http::head::{Method, ResponseHead, Version};
use crate::net::{Buffer, Writer};

/// Answers one request.
#[derive(Debug)]
pub struct Responder<'a> {
    writer: &'a mut Writer,
    request: (Method, Version),
    date: &'a RefCell<DateCache>,
    gap: Duration,
}

impl<'a> Responder<'a> {
    /// The right to answer `request` on `writer`; `gap` is how long the client may take nothing.
    pub fn new(
        writer: &'a mut Writer,
        request: &Request<'_>,
        date: &'a RefCell<DateCache>,
        gap: Duration,
    ) -> Self {
        Self { writer, request: (request.head.method, request.head.version), date, gap }
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
    pub async fn interim(&mut self, head: &ResponseHead, bytes: &[u8]) -> Result<(), Error> {
        if self.version() == Version::Http10 {
            return Ok(());
        }
        let mut out = BytesMut::new();
        forward::interim_response(&mut out, head, bytes);
        self.writer.write_all(&mut Buffer::from(out), self.gap).await.map_err(client_error)
    }

    /// Writes the head of the final response into `out`.
    pub fn encode(
        &self,
        out: &mut BytesMut,
        head: &ResponseHead,
        bytes: &[u8],
        shape: ResponseShape,
    ) {
        let mut date = self.date.borrow_mut();
        forward::response(out, head, bytes, shape, self.request, date.at(SystemTime::now()));
    }

    /// Begins the final response, whose head and body may now be written.
    pub fn start(self, status: u16, context: &Context) -> ResponseWriter<'a> {
        context.status.set(status);
        ResponseWriter { writer: self.writer, gap: self.gap }
    }

    /// Answers with a status and its name, nothing else.
    ///
    /// # Errors
    /// When the client is gone or does not read.
    pub async fn answer(
        self,
        status: u16,
        persistent: bool,
        context: &Context,
    ) -> Result<(), Error> {
        context.status.set(status);
        let (method, version) = self.request;
        let with_body = method != Method::Head;
        let about = Answer { status, persistent, version, with_body };
        answer(self.writer, self.date, about, self.gap).await
    }
}

/// Writes a response that has begun.
#[derive(Debug)]
pub struct ResponseWriter<'a> {
    writer: &'a mut Writer,
    gap: Duration,
}

impl ResponseWriter<'_> {
    /// Writes all that `buffer` holds.
    ///
    /// # Errors
    /// When the client is gone or does not read.
    pub async fn write(&mut self, buffer: &mut Buffer) -> Result<(), Error> {
        self.writer.write_all(buffer, self.gap).await.map_err(client_error)
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
pub async fn answer(
    writer: &mut Writer,
    date: &RefCell<DateCache>,
    about: Answer,
    gap: Duration,
) -> Result<(), Error> {
    let mut out = BytesMut::with_capacity(256);
    encode::answer(&mut out, about, date.borrow_mut().at(SystemTime::now()));
    writer.write_all(&mut Buffer::from(out), gap).await.map_err(client_error)
}

fn client_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::ClientStalled,
        _ => Error::ClientGone,
    }
}
