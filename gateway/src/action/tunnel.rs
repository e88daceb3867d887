//! What a connection becomes after an endpoint has answered 101: bytes in both directions that
//! nobody looks at. Each direction ends by itself; a broken or silent tunnel ends as a whole.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};

use crate::exchange::context::add;
use crate::exchange::{Context, Error, Resources, ResponseWriter};
use crate::net::deadline::Alarm;
use crate::net::stream::spare;
use crate::net::{Buffer, Deadline, Reader, Stream, Writer};
use crate::telemetry::metrics;

/// The client's side of a tunnel.
pub(super) struct Client<'a, 'w> {
    pub reader: &'a mut Reader,
    pub writer: ResponseWriter<'w>,
    /// What it sent behind its request, which may only now be taken for the tunnel's.
    pub sent_ahead: &'a [u8],
    /// Who it is, which may be another than who has sent the bytes.
    pub address: IpAddr,
}

/// Carries bytes until both sides have closed.
///
/// # Errors
/// When a side breaks its connection, does not read, or both are silent for too long.
pub(super) async fn tunnel(
    resources: &Resources,
    client: Client<'_, '_>,
    origin: &mut Stream,
    context: &Context,
) -> Result<(), Error> {
    let Client { reader, mut writer, sent_ahead, address } = client;
    let _open = Open::new(&resources.metrics);
    reader.timer().belongs_to(address);
    spare(reader, writer.writer());
    origin.spare();
    let mut ahead = resources.buffers.take();
    ahead.append(sent_ahead);
    let gap = resources.timeouts.body;
    origin.writer.write_all(&mut ahead, gap).await.map_err(|_| Error::ResponseCut)?;
    add(&context.bytes_in, sent_ahead.len());
    resources.metrics.tunnel_bytes_in.add(sent_ahead.len() as u64);
    resources.buffers.give(ahead);

    let silence = Cell::new(resources.timeouts.tunnel);
    let up = Direction {
        resources,
        other: origin.reader.timer().alarm(),
        reader,
        silence: &silence,
        bytes: &context.bytes_in,
        counter: &resources.metrics.tunnel_bytes_in,
        broken: Error::ClientGone,
    };
    let down = Direction {
        resources,
        other: up.reader.timer().alarm(),
        reader: &mut origin.reader,
        silence: &silence,
        bytes: &context.bytes_out,
        counter: &resources.metrics.tunnel_bytes_out,
        broken: Error::ResponseCut,
    };
    let up = pin!(up.carry(Sink::Origin(&mut origin.writer)));
    let down = pin!(down.carry(Sink::Client(&mut writer)));
    match select(up, down).await {
        Either::Left((Ok(()), down)) => down.await,
        Either::Right((Ok(()), up)) => up.await,
        Either::Left((broken, _)) | Either::Right((broken, _)) => broken,
    }
}

/// Where a direction's bytes go.
enum Sink<'a, 'w> {
    Client(&'a mut ResponseWriter<'w>),
    Origin(&'a mut Writer),
}

impl Sink<'_, '_> {
    async fn write(&mut self, buffer: &mut Buffer, gap: Duration) -> Result<(), Error> {
        match self {
            Self::Client(writer) => writer.write(buffer).await,
            Self::Origin(writer) => {
                writer.write_all(buffer, gap).await.map_err(|_| Error::ResponseCut)
            }
        }
    }

    fn finish(&mut self) {
        match self {
            Self::Client(writer) => writer.finish(),
            Self::Origin(writer) => writer.finish(),
        }
    }
}

/// One direction of a tunnel.
struct Direction<'a> {
    resources: &'a Resources,
    reader: &'a mut Reader,
    /// The other direction's deadline: bytes here keep silence there from ending the tunnel.
    other: Alarm,
    /// How long both directions may be silent.
    silence: &'a Cell<Duration>,
    bytes: &'a Cell<u64>,
    counter: &'a metrics::Counter,
    /// What it means when the reader breaks.
    broken: Error,
}

impl Direction<'_> {
    async fn carry(self, mut to: Sink<'_, '_>) -> Result<(), Error> {
        let Resources { buffers, timeouts, metrics, .. } = self.resources;
        loop {
            let until = Deadline::after(self.silence.get());
            // No buffer while nothing comes: most tunnels are silent most of the time.
            let mut read = self.reader.ready(until).await.map(|()| 0);
            let mut buffer = buffers.take();
            if read.is_ok() {
                read = self.reader.read(&mut buffer, usize::MAX, until).await;
            }
            match read {
                Ok(0) => {
                    to.finish();
                    // The other side is done, or about to be.
                    self.silence.set(timeouts.body);
                    self.other.arm(Deadline::after(timeouts.body));
                    return Ok(());
                }
                Ok(count) => {
                    add(self.bytes, count);
                    self.counter.add(count as u64);
                    to.write(&mut buffer, timeouts.body).await?;
                    buffers.give(buffer);
                    self.other.arm(Deadline::after(self.silence.get()));
                }
                Err(_) if self.reader.timer().is_doomed() => return Err(self.broken),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    metrics.deadline(metrics::Deadline::Tunnel);
                    return Err(Error::TunnelSilent);
                }
                Err(_) => return Err(self.broken),
            }
        }
    }
}

/// Counts a tunnel as open, also when its task ends by a panic.
struct Open<'a>(&'a metrics::Worker);

impl<'a> Open<'a> {
    fn new(metrics: &'a metrics::Worker) -> Self {
        metrics.tunnels_open.add(1);
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.tunnels_open.sub(1);
    }
}
