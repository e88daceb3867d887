//! The floor: moves bytes between a client's connection and one of its own to the origin, reads no
//! HTTP, keeps no count and no deadline. What it costs, the kernel costs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Result;

use crate::poll::{Interest, Poll};

const LISTENER: usize = usize::MAX;

/// Relays until the process ends.
pub fn run(address: SocketAddr, origin: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER, Interest::Read)?;
    let mut pairs: Vec<Option<[End; 2]>> = Vec::new();
    let mut free = Vec::new();
    let mut ready = Vec::new();
    let mut room = vec![0; 64 << 10];
    loop {
        poll.wait(&mut ready, None)?;
        for &token in &ready {
            if token == LISTENER {
                let Ok((client, _)) = listener.accept() else { continue };
                let pair = [End::new(client)?, End::new(TcpStream::connect(origin)?)?];
                let place = free.pop().unwrap_or(pairs.len());
                for (side, end) in pair.iter().enumerate() {
                    poll.add(&end.stream, 2 * place + side, Interest::Read)?;
                }
                match pairs.get_mut(place) {
                    Some(old) => *old = Some(pair),
                    None => pairs.push(Some(pair)),
                }
                continue;
            }
            let place = token / 2;
            let Some(Some(pair)) = pairs.get_mut(place) else { continue };
            if advance(pair, token % 2, place, &poll, &mut room).is_err() {
                pairs.get_mut(place).map(Option::take);
                free.push(place);
            }
        }
    }
}

/// One connection, and what it could not take yet.
struct End {
    stream: TcpStream,
    waiting: Vec<u8>,
}

impl End {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, waiting: Vec::new() })
    }

    /// Sends as much as there is room for.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

/// Goes on with what one side has to say, or to take; an error ends both.
fn advance(
    [client, origin]: &mut [End; 2],
    side: usize,
    place: usize,
    poll: &Poll,
    room: &mut [u8],
) -> Result<()> {
    let (own, other) = if side == 0 { (client, origin) } else { (origin, client) };
    if !own.waiting.is_empty() {
        let waiting = std::mem::take(&mut own.waiting);
        let sent = own.send(&waiting)?;
        own.waiting.extend_from_slice(waiting.get(sent..).unwrap_or_default());
        if own.waiting.is_empty() {
            poll.change(&own.stream, 2 * place + side, Interest::Read)?;
        }
        return Ok(());
    }
    if !other.waiting.is_empty() {
        return Ok(());
    }
    let count = match own.stream.read(room) {
        Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
        result => result?,
    };
    let bytes = room.get(..count).unwrap_or_default();
    let sent = other.send(bytes)?;
    if let Some(rest @ [_, ..]) = bytes.get(sent..) {
        other.waiting.extend_from_slice(rest);
        poll.change(&other.stream, 2 * place + (1 - side), Interest::Write)?;
    }
    Ok(())
}
