//! What a parser makes of a head.

use gateway::http::framing::{self, Framing};
use gateway::http::head::{RequestHead, Version};
use gateway::http::parse::{self, HeadLimits, Scan};

/// Small, so that the heads here reach them.
pub const LIMITS: HeadLimits =
    HeadLimits { bytes: 500, start_line: 80, fields: 10, underscores: false };

/// More fields than any head here has.
const FIELDS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Take(Request),
    Refuse(String),
    /// More bytes are needed.
    Wait,
}

/// What a parser understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes up to the end of the head.
    pub consumed: usize,
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    /// Of HTTP/1; a higher one than 1 counts as 1 (RFC 9110 §2.5).
    pub minor_version: u8,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// httparse does not say.
    pub body: Option<Body>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Also for none at all.
    Bytes(u128),
    Chunked,
}

/// The gateway's, which ignores some empty lines before it parses.
pub fn of_gateway(bytes: &[u8]) -> Verdict {
    let empty_lines = parse::empty_lines(bytes);
    let bytes = &bytes[empty_lines..];
    let mut head = RequestHead::default();
    match parse::request(bytes, &mut Scan::default(), LIMITS, &mut head) {
        Ok(true) => {}
        Ok(false) => return Verdict::Wait,
        Err(reject) => return Verdict::Refuse(reject.reason().to_owned()),
    }
    let body = match framing::request(&head, bytes) {
        Ok(Framing::Empty) => Body::Bytes(0),
        Ok(Framing::Length(length)) => Body::Bytes(length.into()),
        Ok(Framing::Chunked) => Body::Chunked,
        Ok(Framing::Close) => panic!("a request does not end with its connection"),
        Err(reject) => return Verdict::Refuse(reject.reason().to_owned()),
    };
    let fields = head.fields.iter();
    Verdict::Take(Request {
        consumed: empty_lines + head.len,
        method: head.method_name.of(bytes).to_vec(),
        target: head.target_text.of(bytes).to_vec(),
        minor_version: u8::from(head.version == Version::Http11),
        fields: fields.map(|f| (f.name.of(bytes).to_vec(), f.value.of(bytes).to_vec())).collect(),
        body: Some(body),
    })
}

/// httparse's, as strict as it is.
pub fn of_httparse(bytes: &[u8]) -> Verdict {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(consumed)) => Verdict::Take(Request {
            consumed,
            method: request.method.unwrap().into(),
            target: request.path.unwrap().into(),
            minor_version: request.version.unwrap(),
            fields: request.headers.iter().map(|f| (f.name.into(), f.value.into())).collect(),
            body: None,
        }),
        Ok(httparse::Status::Partial) => Verdict::Wait,
        Err(error) => Verdict::Refuse(error.to_string()),
    }
}

/// What they do not agree on. Only the verdict may be explained, by one of the rules.
pub fn difference(ours: &Verdict, theirs: &Verdict) -> Option<&'static str> {
    use Verdict::{Refuse, Take, Wait};
    let (ours, theirs) = match (ours, theirs) {
        (Take(ours), Take(theirs)) => (ours, theirs),
        (Refuse(_), Refuse(_)) | (Wait, Wait) => return None,
        (Wait, Take(_)) | (Take(_), Wait) => return Some("end of the head"),
        (Refuse(_), _) | (_, Refuse(_)) => return Some("verdict"),
    };
    let same_fields = ours.fields.len() == theirs.fields.len()
        && ours.fields.iter().zip(&theirs.fields).all(|(ours, theirs)| same_field(ours, theirs));
    [
        ("length", ours.consumed == theirs.consumed),
        ("method", ours.method == theirs.method),
        ("target", ours.target == theirs.target),
        ("version", ours.minor_version.min(1) == theirs.minor_version.min(1)),
        ("fields", same_fields),
        ("body", theirs.body.is_none() || ours.body == theirs.body),
    ]
    .into_iter()
    .find_map(|(part, same)| (!same).then_some(part))
}

/// h11 turns the names of codings to lower case, which is what they are compared in.
fn same_field(ours: &(Vec<u8>, Vec<u8>), theirs: &(Vec<u8>, Vec<u8>)) -> bool {
    let is_coding = ours.0.eq_ignore_ascii_case(b"transfer-encoding");
    ours.0 == theirs.0
        && (ours.1 == theirs.1 || is_coding && ours.1.eq_ignore_ascii_case(&theirs.1))
}
