//! What of a message may pass: the only place where heads are rewritten, in both directions.
//!
//! A field is removed here if it describes one hop (RFC 9110 §7.6.1), if it frames a body, which
//! the gateway frames anew, or if it claims to know the client, which only the gateway does.

use bytes::{BufMut, BytesMut};

use super::Reject;
use super::edits::Edits;
use super::encode::{connection, decimal, field, reason, status_line};
use super::framing::{Framing, content_length};
use super::head::{Field, Method, RequestHead, ResponseHead, Version, values};
use super::headers::{Name, members};

/// A head that may be sent to an origin. Only [`request`] makes one, so a head that was not
/// cleaned cannot be sent.
#[derive(Debug, Default)]
pub struct UpstreamHead(BytesMut);

impl UpstreamHead {
    /// The bytes to send; a body or its first part may be appended.
    pub fn into_bytes(self) -> BytesMut {
        self.0
    }
}

/// What the gateway knows about the client and tells the origin.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// The client's address without port, and behind it, after a comma and a space each, those of
    /// trusted proxies it came through.
    pub chain: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host it asked the first of those proxies for, if it came through any.
    pub host: Option<&'a [u8]>,
    /// Whether the sender is such a proxy, whose further `X-Forwarded-…` fields pass.
    pub trusted: bool,
    /// What names the request in everybody's logs.
    pub request_id: &'a [u8],
    /// Field lines about its certificate.
    pub certificate: &'a [u8],
}

/// How a request is to be written to the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestShape<'a> {
    /// Where its body ends.
    pub framing: Framing,
    /// Whether it is WebSocket's opening handshake.
    pub upgrade: bool,
    /// Its method, in place of the client's.
    pub method: Option<&'a [u8]>,
    /// Its path, in place of the client's.
    pub path: Option<&'a [u8]>,
    /// Its query with the question mark, in place of the client's.
    pub query: Option<&'a [u8]>,
    /// Its host, in place of the client's.
    pub host: Option<&'a [u8]>,
}

/// Writes the head to send to the origin into `out`, which is cleared first. What `edits` remove are
/// fields of the client's, not of the gateway's own.
///
/// # Errors
/// When the request asks for something the gateway cannot pass on.
pub fn request(
    mut out: BytesMut,
    head: &RequestHead,
    bytes: &[u8],
    shape: RequestShape<'_>,
    client: Client<'_>,
    edits: &Edits,
) -> Result<UpstreamHead, Reject> {
    let RequestShape { framing, upgrade, .. } = shape;
    out.clear();
    out.put_slice(shape.method.unwrap_or_else(|| head.method_name.of(bytes)));
    out.put_u8(b' ');
    out.put_slice(shape.path.unwrap_or_else(|| head.target.path(bytes)));
    let query = shape.query.or(edits.query());
    out.put_slice(query.unwrap_or_else(|| head.target.query.of(bytes)));
    out.put_slice(b" HTTP/1.1\r\n");
    let host = head.authority.map(|authority| authority.of(bytes)).unwrap_or_default();
    field(&mut out, "host", shape.host.unwrap_or(host));
    let nominated = Nominated::of(&head.fields, bytes, edits);
    for line in &head.fields {
        match line.known {
            Name::Accept
            | Name::Cookie
            | Name::Date
            | Name::Other
            | Name::Referer
            | Name::UserAgent => nominated.pass(&mut out, line, bytes),
            Name::XForwarded if client.trusted => nominated.pass(&mut out, line, bytes),
            Name::XForwarded => {}
            // RFC 9110 §7.6.2: counted for these methods, and nothing to others.
            Name::MaxForwards => match head.max_forwards {
                Some(left) => {
                    out.put_slice(b"max-forwards: ");
                    decimal(&mut out, left.saturating_sub(1));
                    out.put_slice(b"\r\n");
                }
                None => nominated.pass(&mut out, line, bytes),
            },
            Name::Expect => {
                if !line.value.of(bytes).eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reject::Expectation);
                }
                // RFC 9110 §10.1.1: ignored from a 1.0 client; without a body there is nothing to
                // continue with.
                let body = !matches!(framing, Framing::Empty | Framing::Length(0));
                if head.version == Version::Http11 && body {
                    field(&mut out, "expect", b"100-continue");
                }
            }
            Name::ClientCert
            | Name::Connection
            | Name::ContentLength
            | Name::Forwarded
            | Name::Host
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::Te
            | Name::Trailer
            | Name::TransferEncoding
            | Name::Underscored
            | Name::Upgrade
            | Name::XForwardedFor
            | Name::XForwardedHost
            | Name::XForwardedProto
            | Name::XRequestId => {}
        }
    }
    write_framing(&mut out, framing);
    if upgrade {
        write_upgrade(&mut out);
    }
    let asked_for = client.host.unwrap_or(host);
    field(&mut out, "x-forwarded-for", client.chain.as_bytes());
    field(&mut out, "x-forwarded-proto", client.scheme.as_bytes());
    field(&mut out, "x-forwarded-host", asked_for);
    write_forwarded(&mut out, client, asked_for);
    field(&mut out, "x-request-id", client.request_id);
    out.put_slice(client.certificate);
    edits.write(&mut out);
    let received = if head.version == Version::Http10 { "1.0 gateway" } else { "1.1 gateway" };
    // RFC 9110 §7.6.3: after the Via fields already there, which have passed above.
    field(&mut out, "via", received.as_bytes());
    out.put_slice(b"\r\n");
    Ok(UpstreamHead(out))
}

/// RFC 7239: the same in one field. An address with colons, or a host with a port, is no token.
fn write_forwarded(out: &mut BytesMut, client: Client<'_>, host: &[u8]) {
    out.put_slice(b"forwarded: ");
    for (position, address) in client.chain.split(',').map(str::trim_start).enumerate() {
        out.put_slice(if position == 0 { b"for=" } else { b", for=" });
        if address.contains(':') {
            out.put_slice(b"\"[");
            out.put_slice(address.as_bytes());
            out.put_slice(b"]\"");
        } else {
            out.put_slice(address.as_bytes());
        }
        if position > 0 {
            continue;
        }
        // HTTP/1.0 may name no host. A checked one has no quote and no backslash.
        if !host.is_empty() {
            out.put_slice(b";host=\"");
            out.put_slice(host);
            out.put_u8(b'"');
        }
        out.put_slice(b";proto=");
        out.put_slice(client.scheme.as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// How a response is to be written to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseShape {
    /// The framing towards the client, not that of the origin.
    pub framing: Framing,
    /// Whether the client's connection stays open afterwards.
    pub persistent: bool,
}

/// Writes the head of a final response for the client into `out`, which is cleared first.
pub fn response(
    out: &mut BytesMut,
    head: &ResponseHead,
    bytes: &[u8],
    shape: ResponseShape,
    request: (Method, Version),
    date: &[u8],
    edits: &Edits,
) {
    out.clear();
    let nominated = begin_response(out, head, bytes, edits);
    let mut dated = false;
    for line in &head.fields {
        dated |= line.known == Name::Date;
        pass_response_field(out, line, bytes, &nominated);
    }
    if !dated {
        field(out, "date", date);
    }
    write_framing(out, shape.framing);
    // RFC 9110 §9.3.2, §15.4.5: here Content-Length is about the body that was not sent.
    if (request.0 == Method::Head || head.status == 304)
        && let Ok(Some(length)) = content_length(head, bytes)
    {
        write_framing(out, Framing::Length(length));
    }
    edits.write(out);
    connection(out, shape.persistent, request.1);
    out.put_slice(b"\r\n");
}

/// Writes an interim response (1xx) for the client into `out`, which is cleared first. What `edits` remove
/// does not pass; what they add, the final one has.
pub fn interim_response(out: &mut BytesMut, head: &ResponseHead, bytes: &[u8], edits: &Edits) {
    out.clear();
    let nominated = begin_response(out, head, bytes, edits);
    for line in &head.fields {
        pass_response_field(out, line, bytes, &nominated);
    }
    out.put_slice(b"\r\n");
}

fn begin_response<'a>(
    out: &mut BytesMut,
    head: &'a ResponseHead,
    bytes: &'a [u8],
    edits: &'a Edits,
) -> Nominated<'a> {
    let text = match head.reason.of(bytes) {
        [] => reason(head.status).as_bytes(),
        text => text,
    };
    status_line(out, head.status, text);
    Nominated::of(&head.fields, bytes, edits)
}

fn pass_response_field(out: &mut BytesMut, line: &Field, bytes: &[u8], nominated: &Nominated<'_>) {
    match line.known {
        Name::Connection
        | Name::ContentLength
        | Name::KeepAlive
        | Name::ProxyConnection
        | Name::Te
        | Name::Trailer
        | Name::TransferEncoding
        | Name::Upgrade => {}
        Name::Accept
        | Name::ClientCert
        | Name::Cookie
        | Name::Date
        | Name::Expect
        | Name::Forwarded
        | Name::Host
        | Name::MaxForwards
        | Name::Other
        | Name::Referer
        | Name::Underscored
        | Name::UserAgent
        | Name::XForwarded
        | Name::XForwardedFor
        | Name::XForwardedHost
        | Name::XForwardedProto
        | Name::XRequestId => nominated.pass(out, line, bytes),
    }
}

/// Writes the head of a response that makes the connection a WebSocket into `out`, which is cleared
/// first.
pub fn switching_response(out: &mut BytesMut, head: &ResponseHead, bytes: &[u8], edits: &Edits) {
    out.clear();
    let nominated = begin_response(out, head, bytes, edits);
    for line in &head.fields {
        pass_response_field(out, line, bytes, &nominated);
    }
    edits.write(out);
    write_upgrade(out);
    out.put_slice(b"\r\n");
}

fn write_upgrade(out: &mut BytesMut) {
    field(out, "connection", b"upgrade");
    field(out, "upgrade", b"websocket");
}

fn write_framing(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            out.put_slice(b"content-length: ");
            decimal(out, length);
            out.put_slice(b"\r\n");
        }
        Framing::Chunked => field(out, "transfer-encoding", b"chunked"),
        Framing::Empty | Framing::Close => {}
    }
}

/// The fields a message's Connection field names: they are for this hop only (RFC 9110 §7.6.1). And
/// those that a policy removes.
struct Nominated<'a> {
    fields: &'a [Field],
    bytes: &'a [u8],
    any: bool,
    edits: &'a Edits,
}

impl<'a> Nominated<'a> {
    fn of(fields: &'a [Field], bytes: &'a [u8], edits: &'a Edits) -> Self {
        let any = values(fields, bytes, Name::Connection).flat_map(members).any(|member| {
            !member.eq_ignore_ascii_case(b"close") && !member.eq_ignore_ascii_case(b"keep-alive")
        });
        Self { fields, bytes, any, edits }
    }

    /// Copies a field line unless the message's sender named it. What authenticates the client is
    /// meant for the origin: naming it must not strip it.
    fn pass(&self, out: &mut BytesMut, line: &Field, bytes: &[u8]) {
        let name = line.name.of(bytes);
        if self.any && self.has(name) || self.edits.removes(name) {
            return;
        }
        out.put_slice(name);
        out.put_slice(b": ");
        let value = line.value.of(bytes);
        out.put_slice(value);
        self.edits.write_behind(out, name, value);
        out.put_slice(b"\r\n");
    }

    fn has(&self, name: &[u8]) -> bool {
        const KEPT: [&[u8]; 2] = [b"authorization", b"cookie"];
        !KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept))
            && values(self.fields, self.bytes, Name::Connection)
                .flat_map(members)
                .any(|member| member.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::{self, HeadLimits, Scan};
    use super::super::{framing, head};
    use super::*;

    const LIMITS: HeadLimits =
        HeadLimits { bytes: 4096, start_line: 1024, fields: 50, underscores: true };

    fn forwarded(text: &str) -> Result<String, Reject> {
        let bytes = text.as_bytes();
        let mut head = RequestHead::default();
        assert!(parse::request(bytes, &mut Scan::default(), LIMITS, &mut head)?);
        let framing = framing::request(&head, bytes)?;
        let client = Client {
            chain: "192.0.2.1, 2001:db8::1",
            scheme: "http",
            host: None,
            trusted: false,
            request_id: b"1",
            certificate: b"x-client-cert-subject: CN=a\r\n",
        };
        let shape = RequestShape { framing, ..RequestShape::default() };
        let head = request(BytesMut::new(), &head, bytes, shape, client, &Edits::default())?;
        Ok(String::from_utf8(head.into_bytes().to_vec()).unwrap())
    }

    #[test]
    fn only_end_to_end_fields_pass() {
        let sent = forwarded(
            "POST http://a.test/x?y=%20 HTTP/1.1\r\nHost: ignored\r\nX-One: 1\r\n\
             Connection: close, x-two\r\nX-Two: 2\r\nConnection: X-THREE, authorization\r\n\
             x-three: 3\r\nAuthorization: Basic eA==\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
             Proxy-Connection: close\r\nUpgrade: h2c\r\nTrailer: x\r\nVia: 1.0 other\r\n\
             X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nClient-Cert: :YQ==:\r\n\
             X-Client-Cert-Subject: CN=b\r\nX-Client-Cert-X: b\r\nContent-Length: 3\r\n\r\n",
        );
        assert_eq!(
            sent.unwrap(),
            "POST /x?y=%20 HTTP/1.1\r\nhost: a.test\r\nX-One: 1\r\nAuthorization: Basic eA==\r\n\
             Via: 1.0 other\r\ncontent-length: 3\r\nx-forwarded-for: 192.0.2.1, 2001:db8::1\r\n\
             x-forwarded-proto: http\r\nx-forwarded-host: a.test\r\n\
             forwarded: for=192.0.2.1;host=\"a.test\";proto=http, for=\"[2001:db8::1]\"\r\n\
             x-request-id: 1\r\nx-client-cert-subject: CN=a\r\nvia: 1.1 gateway\r\n\r\n"
        );
    }

    #[test]
    fn expectations() {
        let with = |version, fields| {
            forwarded(&format!("PUT / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"))
        };
        let expect = "Expect: 100-Continue\r\nContent-Length: 3\r\n";
        assert!(with("1.1", expect).unwrap().contains("expect: 100-continue\r\n"));
        assert!(!with("1.0", expect).unwrap().contains("expect"));
        assert!(!with("1.1", "Expect: 100-continue\r\n").unwrap().contains("expect"));
        assert_eq!(with("1.1", "Expect: x\r\n"), Err(Reject::Expectation));
    }

    #[test]
    fn a_response_is_framed_anew() {
        let bytes = b"HTTP/1.0 200 \r\nServer: x\r\nContent-Length: 5\r\nConnection: x-a\r\n\
            X-A: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
        let mut parsed = head::ResponseHead::default();
        assert_eq!(parse::response(bytes, &mut Scan::default(), LIMITS, &mut parsed), Ok(true));
        let write = |method, version, framing, persistent| {
            let mut out = BytesMut::new();
            let shape = ResponseShape { framing, persistent };
            let edits = Edits::default();
            response(&mut out, &parsed, bytes, shape, (method, version), b"now", &edits);
            String::from_utf8(out.to_vec()).unwrap()
        };
        let start =
            "HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ndate: now\r\n";
        assert_eq!(
            write(Method::Get, Version::Http11, Framing::Chunked, true),
            format!("{start}transfer-encoding: chunked\r\n\r\n")
        );
        assert_eq!(
            write(Method::Head, Version::Http10, Framing::Empty, true),
            format!("{start}content-length: 5\r\nconnection: keep-alive\r\n\r\n")
        );
        assert_eq!(
            write(Method::Get, Version::Http10, Framing::Close, false),
            format!("{start}connection: close\r\n\r\n")
        );
    }
}
