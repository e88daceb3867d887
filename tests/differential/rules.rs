//! Why the gateway and a peer may disagree. A rule looks at the raw head, not at what the gateway
//! said about it, and it binds in both directions: what a rule says we refuse must be refused, even
//! where no peer takes it.

use crate::head::{Head, is_authority, text};
use crate::verdict::LIMITS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Httparse,
    H11,
}

/// What the gateway does and the peer does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum We {
    Refuse,
    Take,
    /// For the end of the head, where the peer has seen enough.
    Wait,
}

pub struct Rule {
    pub name: &'static str,
    pub section: &'static str,
    pub we: We,
    /// Whom it sets us apart from.
    pub peers: &'static [Peer],
    pub holds: fn(&Head) -> bool,
}

const HTTPARSE: &[Peer] = &[Peer::Httparse];
const H11: &[Peer] = &[Peer::H11];
const BOTH: &[Peer] = &[Peer::Httparse, Peer::H11];

const fn rule(
    we: We,
    peers: &'static [Peer],
    section: &'static str,
    name: &'static str,
    holds: fn(&Head) -> bool,
) -> Rule {
    Rule { name, section, we, peers, holds }
}

use We::{Refuse, Take, Wait};

pub const RULES: &[Rule] = &[
    rule(Refuse, BOTH, "9112 §2.2", "LF without CR", |head| {
        let ends = head.bytes.iter().filter(|byte| **byte == b'\n').count();
        head.bytes.windows(2).filter(|two| two == b"\r\n").count() < ends
    }),
    rule(Refuse, HTTPARSE, "9112 §2.2", "more than four empty lines first", |head| {
        head.empty_lines > 4
    }),
    rule(Refuse, BOTH, "9110 §5.4", "head longer than the limit", |head| {
        head.length > LIMITS.bytes
    }),
    rule(Refuse, BOTH, "9112 §3", "request line longer than the limit", |head| {
        head.line.len() + 2 > LIMITS.start_line
    }),
    rule(Refuse, BOTH, "3875 §4.1.18", "underscore in a name", |head| {
        head.lines.iter().any(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            line[..colon].contains(&b'_')
        })
    }),
    rule(Refuse, BOTH, "9110 §5.4", "more fields than the limit", |head| {
        head.lines.len() > LIMITS.fields
    }),
    rule(Refuse, BOTH, "9110 §9.3", "CONNECT and TRACE", |head| {
        [&b"CONNECT"[..], b"TRACE"].contains(&head.method)
    }),
    rule(Refuse, BOTH, "9112 §3.2", "target of no form, or not of this method", |head| {
        let is_asterisk = head.method == b"OPTIONS" && head.target == b"*";
        !is_asterisk && !head.target.starts_with(b"/") && head.absolute().is_none()
    }),
    rule(Refuse, BOTH, "3986 §3.3", "character that no path or query has", |head| {
        let target = path_and_query(head);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let strange = |c: char, more: &str| {
            !c.is_ascii_alphanumeric()
                && !"-._~%!$&'()*+,;=:@/|[]^".contains(c)
                && !more.contains(c)
        };
        path.chars().any(|c| strange(c, "")) || query.chars().any(|c| strange(c, "?{}`"))
    }),
    rule(Refuse, BOTH, "3986 §2.1", "percent sign without two digits", |head| {
        let target = path_and_query(head);
        target.split('%').skip(1).any(|after| {
            !after.get(..2).is_some_and(|two| two.chars().all(|c| c.is_ascii_hexdigit()))
        })
    }),
    rule(Refuse, BOTH, "9112 §3.2.2", "target's authority invalid", |head| {
        head.absolute().is_some_and(|(authority, _)| !is_authority(&authority))
    }),
    rule(Refuse, BOTH, "9112 §3.2", "no Host in HTTP/1.1", |head| {
        matches!(head.version.strip_prefix(b"HTTP/1."), Some([b'1'..=b'9']))
            && head.values("host").is_empty()
    }),
    rule(Refuse, HTTPARSE, "9112 §3.2", "more than one Host", |head| {
        head.values("host").len() > 1
    }),
    rule(Refuse, BOTH, "9110 §7.2", "Host invalid", |head| {
        head.values("host").iter().any(|host| !is_authority(host))
    }),
    rule(Take, HTTPARSE, "9110 §2.5", "HTTP/1.2 to HTTP/1.9", |head| {
        matches!(head.version.strip_prefix(b"HTTP/1."), Some([b'2'..=b'9']))
    }),
    rule(Refuse, H11, "9112 §2.3", "major version other than 1", |head| {
        let number = head.version.strip_prefix(b"HTTP/").unwrap_or_default();
        matches!(number, [b'0' | b'2'..=b'9', b'.', b'0'..=b'9'])
    }),
    rule(Refuse, H11, "9112 §5.2", "line folding", |head| {
        head.lines.iter().any(|line| line.starts_with(b" ") || line.starts_with(b"\t"))
    }),
    rule(Refuse, H11, "9110 §5.5", "control character in a value", |head| {
        let controls = |c: char| c.is_ascii_control() && c != '\t';
        head.lines.iter().any(|line| text(line).contains(controls))
    }),
    rule(Refuse, BOTH, "9112 §6.1", "Transfer-Encoding and Content-Length", |head| {
        !head.values("transfer-encoding").is_empty() && !head.values("content-length").is_empty()
    }),
    rule(Refuse, BOTH, "9112 §6.1", "Transfer-Encoding in HTTP/1.0", |head| {
        head.version == b"HTTP/1.0" && !head.values("transfer-encoding").is_empty()
    }),
    rule(Refuse, HTTPARSE, "9112 §6.1", "Transfer-Encoding not chunked alone", |head| {
        let codings = head.members("transfer-encoding");
        let named: Vec<_> = codings.iter().filter(|coding| !coding.is_empty()).collect();
        !codings.is_empty() && (named.len() != 1 || !named[0].eq_ignore_ascii_case("chunked"))
    }),
    rule(Refuse, BOTH, "9110 §8.6", "Content-Length more than once, if the same", |head| {
        head.members("content-length").len() > 1
    }),
    rule(Refuse, HTTPARSE, "9110 §8.6", "Content-Length not digits", |head| {
        let lengths = head.members("content-length");
        lengths.iter().any(|l| l.is_empty() || !l.chars().all(|c| c.is_ascii_digit()))
    }),
    rule(Refuse, BOTH, "9110 §8.6", "Content-Length of more than 64 bits", |head| {
        let lengths = head.members("content-length");
        lengths.iter().any(|length| {
            let digits = length.trim_start_matches('0');
            let all = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
            // Numbers of the same length compare as their text does.
            all && (digits.len(), digits) > (20, "18446744073709551615")
        })
    }),
    rule(Take, H11, "9112 §2.2", "empty lines first", |head| (1..=4).contains(&head.empty_lines)),
    rule(Take, H11, "9110 §5.6.1", "empty members around chunked", |head| {
        let codings = head.members("transfer-encoding");
        codings.len() > 1 && codings.iter().filter(|coding| !coding.is_empty()).count() == 1
    }),
    rule(Wait, BOTH, "9112 §2.2", "no end of the head yet", |head| !head.is_whole),
];

/// Of the origin or the absolute form.
fn path_and_query(head: &Head) -> String {
    match head.absolute() {
        Some((_, rest)) => rest,
        None if head.target.starts_with(b"/") => head.target(),
        None => String::new(),
    }
}
