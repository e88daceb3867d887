//! One TLS connection, from and to bytes in memory.

use std::io::{self, BufRead as _, Write as _};

use bytes::{BufMut as _, BytesMut};
use rustls::pki_types::CertificateDer;
use rustls::{
    AlertDescription, CertificateError, Connection, HandshakeKind, PeerIncompatible,
    ProtocolVersion,
};

/// The state of one connection. What the peer sent goes in by [`receive`](Self::receive) and comes
/// out by [`take`](Self::take); what is written goes in by [`write`](Self::write) and comes out by
/// [`collect`](Self::collect).
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// Received, and not looked at because nobody had room for what it says.
    held: BytesMut,
    /// What rustls said when it failed.
    error: Option<Box<str>>,
    /// The same for whoever reads next, as nothing more is received then.
    failure: Option<Failure>,
}

/// What there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// Nothing before more is received.
    Nothing,
    /// The peer has said that nothing follows.
    End,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Failure {
    /// The client speaks HTTP without TLS.
    PlainHttp,
    /// What was sent is no TLS.
    Malformed,
    /// No version, cipher suite, group or protocol in common.
    Incompatible,
    /// No certificate for the name asked for.
    UnknownName,
    /// The client has to show a certificate and has shown none.
    NoCertificate,
    /// The peer's certificate is out of date, or not valid yet.
    CertificateExpired,
    /// The peer's certificate has been revoked.
    CertificateRevoked,
    /// The peer's certificate is from nobody who is trusted, or no good otherwise.
    CertificateUntrusted,
    /// The peer broke off with an alert, such as for a certificate it does not trust.
    Refused,
    /// The peer closed before it was done.
    Closed,
    /// It took too long.
    Timeout,
    /// Too many others are at it.
    Busy,
    /// Anything else.
    Other,
}

impl Failure {
    /// Every failure with its label value, in the order of the discriminants.
    pub const LABELS: [&'static str; 13] = [
        "plain_http",
        "malformed",
        "incompatible",
        "unknown_name",
        "no_certificate",
        "certificate_expired",
        "certificate_revoked",
        "certificate_untrusted",
        "refused",
        "closed",
        "timeout",
        "busy",
        "other",
    ];

    /// What happened, for the access log.
    pub fn message(self) -> &'static str {
        match self {
            Self::PlainHttp => "plain HTTP where TLS is spoken",
            Self::Malformed => "no TLS, or broken TLS",
            Self::Incompatible => "no TLS version or cipher in common",
            Self::UnknownName => "no certificate for the server name",
            Self::NoCertificate => "no client certificate",
            Self::CertificateExpired => "client certificate expired or not valid yet",
            Self::CertificateRevoked => "client certificate revoked",
            Self::CertificateUntrusted => "client certificate not trusted",
            Self::Refused => "TLS refused by the client",
            Self::Closed => "client closed during the TLS handshake",
            Self::Timeout => "TLS handshake timed out",
            Self::Busy => "too many TLS handshakes",
            Self::Other => "TLS handshake failed",
        }
    }

    /// The same of a server, where rustls has said nothing.
    pub fn message_of_server(self) -> &'static str {
        match self {
            Self::Closed => "it closed during the TLS handshake",
            _ => "TLS handshake failed",
        }
    }

    /// What the socket says of a peer.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Closed,
        }
    }

    /// What rustls makes of what the peer sent.
    pub(super) fn of(error: &rustls::Error) -> Self {
        use rustls::Error;
        match error {
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Self::Malformed,
            Error::PeerIncompatible(
                PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon,
            )
            | Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::CertificateExpired,
            Error::InvalidCertificate(CertificateError::Revoked) => Self::CertificateRevoked,
            Error::InvalidCertificate(_) => Self::CertificateUntrusted,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            Error::AlertReceived(AlertDescription::UserCanceled) => Self::Closed,
            Error::AlertReceived(_) => Self::Refused,
            // What rustls says when the resolver of certificates has none.
            Error::General(message) if message.contains("no server certificate chain") => {
                Self::UnknownName
            }
            _ => Self::Other,
        }
    }
}

impl Session {
    pub(super) fn new(mut connection: Connection) -> Self {
        // Whoever writes bounds what is written before it is collected.
        connection.set_buffer_limit(None);
        Self { connection, held: BytesMut::new(), error: None, failure: None }
    }

    /// Whether the peers have not agreed yet.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether what is to be sent can wait for the first answer: the tickets of TLS 1.3 can.
    pub fn may_delay(&self) -> bool {
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether the peer came with a ticket or a session id that was good.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificates the peer has shown, its own first.
    pub(super) fn peer_chain(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }

    /// Takes what the peer sent until both agree; the rest is held. An answer may have to be sent,
    /// also after a failure.
    ///
    /// # Errors
    /// When there can be no agreement.
    pub fn shake_hands(&mut self, ciphertext: &[u8]) -> Result<(), Failure> {
        let mut rest = ciphertext;
        while self.connection.is_handshaking() && !rest.is_empty() {
            self.process(&mut rest)?;
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }

    /// Takes some of `rest`.
    fn process(&mut self, rest: &mut &[u8]) -> Result<(), Failure> {
        // It takes all there is, or as much as a record may have, and fails only when nobody has
        // taken what it said before.
        self.connection.read_tls(rest).map_err(|_| Failure::Other)?;
        match self.connection.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "TLS");
                self.error = Some(error.to_string().into_boxed_str());
                let failure = Failure::of(&error);
                self.failure = Some(failure);
                Err(failure)
            }
        }
    }

    /// What went wrong, in more words than [`Failure`] has.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Takes what the peer sent, and puts what it says into `out`, at most `max` bytes. An alert may
    /// have to be sent, also after a failure.
    ///
    /// # Errors
    /// When it breaks the protocol.
    pub fn receive(
        &mut self,
        ciphertext: &[u8],
        out: &mut BytesMut,
        max: usize,
    ) -> Result<Taken, Failure> {
        if !self.held.is_empty() {
            self.held.extend_from_slice(ciphertext);
            return self.take(out, max);
        }
        let mut rest = ciphertext;
        let result = self.take_from(&mut rest, out, max);
        self.held = BytesMut::from(rest);
        result
    }

    /// Puts what has been received into `out`, at most `max` bytes.
    ///
    /// # Errors
    /// When it breaks the protocol.
    pub fn take(&mut self, out: &mut BytesMut, max: usize) -> Result<Taken, Failure> {
        let held = std::mem::take(&mut self.held);
        let mut rest = &held[..];
        let result = self.take_from(&mut rest, out, max);
        self.held = BytesMut::from(rest);
        result
    }

    fn take_from(
        &mut self,
        rest: &mut &[u8],
        out: &mut BytesMut,
        max: usize,
    ) -> Result<Taken, Failure> {
        let mut count = 0;
        loop {
            let taken = self.drain(out, max - count);
            match taken {
                Taken::Bytes(more) => count += more,
                Taken::End if count == 0 => return Ok(Taken::End),
                Taken::End | Taken::Nothing => {}
            }
            if rest.is_empty() || count == max {
                return match self.failure {
                    _ if count > 0 => Ok(Taken::Bytes(count)),
                    Some(failure) => Err(failure),
                    None => Ok(taken),
                };
            }
            self.process(rest)?;
        }
    }

    fn drain(&mut self, out: &mut BytesMut, max: usize) -> Taken {
        let mut count = 0;
        let mut reader = self.connection.reader();
        while count < max {
            match reader.fill_buf() {
                Ok([]) if count == 0 => return Taken::End,
                Ok([]) | Err(_) => break,
                Ok(bytes) => {
                    let part = bytes.get(..max - count).unwrap_or(bytes);
                    let length = part.len();
                    out.extend_from_slice(part);
                    reader.consume(length);
                    count += length;
                }
            }
        }
        if count > 0 { Taken::Bytes(count) } else { Taken::Nothing }
    }

    /// Whether there is anything that [`take`](Self::take) may give without more being received.
    pub fn has_received(&mut self) -> bool {
        !self.held.is_empty()
            || self.failure.is_some()
            || self.connection.reader().fill_buf().is_ok()
    }

    /// Takes bytes to be sent, all of them.
    ///
    /// # Errors
    /// When the connection has been closed or has failed.
    pub fn write(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.connection.writer().write_all(plaintext)
    }

    /// Says that no more will be written.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Adds all that is to be sent to the peer to `out`.
    pub fn collect(&mut self, out: &mut BytesMut) {
        while self.connection.wants_write() {
            // Memory takes everything.
            if !matches!(self.connection.write_tls(&mut (&mut *out).writer()), Ok(1..)) {
                return;
            }
        }
    }
}
