//! A toy origin: answers every request with a line of JSON that says who answered: its address, so
//! that the answers of two origins are of one length, which load generators insist on. It serves the
//! demo's gateway and nobody else, so it trusts what it reads.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Serves for as long as the process lives.
pub fn start(address: &'static str, listener: TcpListener) -> io::Result<()> {
    let accept = move || {
        for client in listener.incoming().flatten() {
            // An error is the gateway leaving.
            thread::spawn(move || drop(serve(address, client)));
        }
    };
    thread::Builder::new().name(format!("origin {address}")).spawn(accept).map(drop)
}

fn serve(address: &str, mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client.try_clone()?);
    while let Some(request) = Request::read(&mut reader)? {
        let Request { method, target, client: from, .. } = &request;
        // Debug quotes as JSON does for all that a request line may hold.
        let body = format!(
            "{{\"origin\":{address:?},\"method\":{method:?},\"target\":{target:?},\"client\":{from:?}}}\n"
        );
        let sent = if method == "HEAD" { "" } else { &body };
        let length = body.len();
        client.write_all(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                 X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
                 Content-Length: {length}\r\n\r\n{sent}"
            )
            .as_bytes(),
        )?;
        if request.last {
            break;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Request {
    method: String,
    target: String,
    /// The client's address, as the gateway tells it.
    client: String,
    /// Whether the connection ends after it.
    last: bool,
}

impl Request {
    /// Reads one with its body; `None` when the connection ends instead.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let first = line(reader)?;
        let mut words = first.split(' ').map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Ok(None);
        };
        let mut request = Self { method, target, ..Self::default() };
        let (mut length, mut chunked) = (0, false);
        loop {
            let field = line(reader)?;
            let Some((name, value)) = field.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "transfer-encoding" => chunked = true,
                "connection" => request.last = value.eq_ignore_ascii_case("close"),
                "x-forwarded-for" => request.client = value.to_owned(),
                _ => {}
            }
        }
        if chunked {
            skip_chunks(reader)?
        } else {
            skip(reader, length)?
        }
        Ok(Some(request))
    }
}

fn skip_chunks(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let length = u64::from_str_radix(&line(reader)?, 16).map_err(io::Error::other)?;
        skip(reader, length)?;
        line(reader)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn skip(reader: &mut impl BufRead, length: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(reader, length), &mut io::sink()).map(drop)
}

/// One line without its end; empty at the end of the stream.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_requests_with_and_without_bodies() {
        let mut bytes = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            GET /c HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n"
            .as_slice();
        let mut read = || Request::read(&mut bytes).unwrap();
        assert_eq!(read().unwrap().target, "/a");
        assert_eq!(read().unwrap().target, "/b");
        let last = read().unwrap();
        assert_eq!((last.method.as_str(), last.client.as_str()), ("GET", "192.0.2.1"));
        assert!(last.last);
        assert!(read().is_none());
    }
}
