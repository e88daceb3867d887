//! What comes before the first request of a connection: a PROXY header, on listeners that take one,
//! and TLS.

use std::net::SocketAddr;

use super::Shared;
use crate::exchange::{Error, ProxyProtocol, Trust};
use crate::net::proxy_protocol::{self, Header};
use crate::net::secure::Agreed;
use crate::net::{Buffer, Deadline, Stream};
use crate::telemetry::metrics;
use crate::tls::{Acceptor, ClientCertificate, Failure};

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Where the packets come from.
    pub socket: SocketAddr,
    /// Who that speaks for: itself, or whom a PROXY header names.
    pub source: SocketAddr,
    /// What the source connected to, where that has been said or asked for.
    pub destination: Option<SocketAddr>,
    /// The source's address as text.
    pub address: String,
    /// The certificate of who speaks TLS.
    pub certificate: Option<Box<ClientCertificate>>,
}

impl Peer {
    /// Somebody who speaks for itself.
    pub fn new(socket: SocketAddr) -> Self {
        let mut peer = Self {
            socket,
            source: socket,
            destination: None,
            address: String::new(),
            certificate: None,
        };
        peer.set_source(socket);
        peer
    }

    fn set_source(&mut self, source: SocketAddr) {
        self.source = source;
        self.address = source.ip().to_canonical().to_string();
    }
}

/// Reads the header, if there is to be one. What was read beyond it is left in `buffer`.
///
/// # Errors
/// When there is none where one is required, or it is broken, or does not come in time.
pub(super) async fn read(
    shared: &Shared,
    listener: &Trust,
    stream: &mut Stream,
    buffer: &mut Buffer,
    peer: &mut Peer,
) -> Result<(), Error> {
    let trusted = listener.trusts(peer.socket.ip());
    match listener.proxy_protocol {
        ProxyProtocol::Off => return Ok(()),
        ProxyProtocol::Optional if !trusted => return Ok(()),
        ProxyProtocol::Required if !trusted => return Err(Error::ProxyHeader),
        ProxyProtocol::Optional | ProxyProtocol::Required => {}
    }
    let resources = &shared.resources;
    let until = Deadline::after(resources.timeouts.head);
    *buffer = resources.buffers.take();
    loop {
        match proxy_protocol::parse(buffer.filled()) {
            Header::Whole { len, addresses } => {
                buffer.consume(len);
                if let Some((source, destination)) = addresses {
                    peer.set_source(source);
                    peer.destination = Some(destination);
                }
                return Ok(());
            }
            Header::None if listener.proxy_protocol == ProxyProtocol::Optional => return Ok(()),
            Header::None | Header::Broken => return Err(Error::ProxyHeader),
            Header::Partial => {}
        }
        let room = proxy_protocol::HEADER_BYTES_MAX.saturating_sub(buffer.len());
        match stream.reader.read(buffer, room, until).await {
            Ok(1..) => {}
            _ => return Err(Error::ProxyHeader),
        }
    }
}

/// Agrees on TLS with the client, of which `buffer` holds what was read behind a PROXY header; the
/// certificate it has shown, if any.
///
/// # Errors
/// Why there is no agreement.
pub(super) async fn agree(
    shared: &Shared,
    acceptor: &Acceptor,
    stream: &mut Stream,
    buffer: &mut Buffer,
) -> Result<Option<Box<ClientCertificate>>, Error> {
    let resources = &shared.resources;
    let metrics = &resources.metrics;
    let until = Deadline::after(resources.timeouts.handshake);
    // Who has not said anything yet costs little and takes nobody's place.
    let begun = match buffer.is_empty() {
        true => stream.reader.ready(until).await.map_err(|error| Failure::of_io(&error)),
        false => Ok(()),
    };
    let result = match begun {
        Err(failure) => Err(failure),
        Ok(()) if metrics.handshakes_open.value() >= shared.handshakes_max as u64 => {
            Err(Failure::Busy)
        }
        Ok(()) => {
            let _open = Open::new(metrics);
            stream.accept_tls(acceptor, buffer.filled(), &resources.buffers, until).await
        }
    };
    resources.buffers.give(std::mem::take(buffer));
    match result {
        Ok(Agreed { resumed, client }) => {
            let made = if resumed { &metrics.handshakes_resumed } else { &metrics.handshakes_full };
            made.add(1);
            Ok(client)
        }
        Err(failure) => {
            metrics.handshake_failure(failure);
            Err(Error::Handshake(failure))
        }
    }
}

/// A handshake that counts as going on for as long as this lives, a panic included.
struct Open<'a>(&'a metrics::Worker);

impl<'a> Open<'a> {
    fn new(metrics: &'a metrics::Worker) -> Self {
        metrics.handshakes_open.add(1);
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.handshakes_open.sub(1);
    }
}
