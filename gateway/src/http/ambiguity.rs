//! What in a path servers read differently, so that a check here and a look-up there may mean two
//! different resources. A path goes on byte for byte (RFC 9110 §7.7), hence an ambiguous one is
//! refused, unless its route says that the origin behind it is known to agree.

/// One way for a path to be ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ambiguity {
    /// A segment `.` or `..`, also percent-encoded or followed by parameters, as `..;x`.
    DotSegment = 1,
    /// `//`: some servers merge slashes.
    EmptySegment = 1 << 1,
    /// `%2f` or `%5c`: some servers decode them to a separator.
    EncodedSlash = 1 << 2,
    /// `%2e`: nobody needs to encode a dot.
    EncodedDot = 1 << 3,
    /// `%00` to `%1f` and `%7f`: some servers end the path there.
    EncodedControl = 1 << 4,
    /// `;`: some servers cut parameters off a segment.
    Semicolon = 1 << 5,
}

impl Ambiguity {
    /// All of them, by the names a configuration uses.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("dot_segments", Self::DotSegment),
        ("empty_segments", Self::EmptySegment),
        ("encoded_slashes", Self::EncodedSlash),
        ("encoded_dots", Self::EncodedDot),
        ("encoded_controls", Self::EncodedControl),
        ("semicolons", Self::Semicolon),
    ];

    /// Why a path with it is refused.
    pub fn reason(self) -> &'static str {
        match self {
            Self::DotSegment => "dot segment in the path",
            Self::EmptySegment => "empty segment in the path",
            Self::EncodedSlash => "encoded slash in the path",
            Self::EncodedDot => "encoded dot in the path",
            Self::EncodedControl => "encoded control character in the path",
            Self::Semicolon => "semicolon in the path",
        }
    }
}

/// A set of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ambiguities(u8);

impl Ambiguities {
    /// Those of a path, whose percent-encoding is known to be valid.
    pub fn of(path: &[u8]) -> Self {
        if is_plain(path) { Self::default() } else { Self::search(path) }
    }

    fn search(path: &[u8]) -> Self {
        let mut found = Self::default();
        let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_some() {
                found.insert(Ambiguity::EmptySegment);
            }
            found.search_segment(segment);
        }
        found
    }

    fn search_segment(&mut self, segment: &[u8]) {
        let (mut rest, mut dots, mut in_name) = (segment, 0, true);
        while let Some((byte, encoded, after)) = next_byte(rest) {
            match (byte, encoded) {
                (b'/' | b'\\', true) => self.insert(Ambiguity::EncodedSlash),
                (b'.', true) => self.insert(Ambiguity::EncodedDot),
                (0..0x20 | 0x7f, true) => self.insert(Ambiguity::EncodedControl),
                (b';', false) => self.insert(Ambiguity::Semicolon),
                _ => {}
            }
            match byte {
                b'.' if in_name => dots += 1,
                // What follows it is no part of the name to a server that knows parameters, nor
                // what follows an encoded separator or end.
                b';' | b'/' | b'\\' | 0 => {
                    self.dot_segment(dots);
                    (dots, in_name) = (0, byte != b';');
                }
                _ => dots = usize::MAX / 2,
            }
            rest = after;
        }
        self.dot_segment(dots);
    }

    fn dot_segment(&mut self, dots: usize) {
        if matches!(dots, 1 | 2) {
            self.insert(Ambiguity::DotSegment);
        }
    }

    /// Adds one.
    pub fn insert(&mut self, ambiguity: Ambiguity) {
        self.0 |= ambiguity as u8;
    }

    /// One that is here and not among `allowed`.
    pub fn beyond(self, allowed: Self) -> Option<Ambiguity> {
        let left = self.0 & !allowed.0;
        Ambiguity::NAMES.into_iter().map(|(_, kind)| kind).find(|kind| left & *kind as u8 != 0)
    }
}

/// Whether nothing in the path can be ambiguous, which nearly always is so.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|byte| {
        let suspect = matches!(byte, b'%' | b';') || before == b'/' && matches!(byte, b'/' | b'.');
        before = *byte;
        !suspect
    })
}

/// The first byte of `text`, decoded; whether it was encoded; what follows.
fn next_byte(text: &[u8]) -> Option<(u8, bool, &[u8])> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    match text {
        [b'%', high, low, rest @ ..] => Some((digit(*high)? << 4 | digit(*low)?, true, rest)),
        [byte, rest @ ..] => Some((*byte, false, rest)),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ambiguous_and_what_is_not() {
        use Ambiguity::{
            DotSegment, EmptySegment, EncodedControl, EncodedDot, EncodedSlash, Semicolon,
        };
        let cases: [(&str, &[Ambiguity]); 33] = [
            ("/", &[]),
            ("*", &[]),
            ("", &[]),
            ("/a/b/", &[]),
            ("/.well-known/x", &[]),
            ("/a/...", &[]),
            ("/a/..b/.c/d.", &[]),
            ("/a%20b/%C3%BC%25", &[]),
            ("/%252e%252e/", &[]),
            ("/.", &[DotSegment]),
            ("/..", &[DotSegment]),
            ("/a/./b", &[DotSegment]),
            ("/a/../b", &[DotSegment]),
            ("/../", &[DotSegment]),
            ("/%2e%2E/a", &[DotSegment, EncodedDot]),
            ("/.%2e/a", &[DotSegment, EncodedDot]),
            ("/a%2eb", &[EncodedDot]),
            ("/..;/a", &[DotSegment, Semicolon]),
            ("/..;x=y", &[DotSegment, Semicolon]),
            ("/..%3bx/a", &[DotSegment]),
            ("/a;..", &[Semicolon]),
            ("/a;x/b", &[Semicolon]),
            ("/a%3bx", &[]),
            ("//", &[EmptySegment]),
            ("//a", &[EmptySegment]),
            ("/a//b", &[EmptySegment]),
            ("/a//", &[EmptySegment]),
            ("/a%2fb", &[EncodedSlash]),
            ("/a%5Cb", &[EncodedSlash]),
            ("/..%2fa", &[DotSegment, EncodedSlash]),
            ("/a%5c..", &[DotSegment, EncodedSlash]),
            ("/a%00.html", &[EncodedControl]),
            ("/..%00", &[DotSegment, EncodedControl]),
        ];
        for (path, expected) in cases {
            let mut set = Ambiguities::default();
            expected.iter().for_each(|kind| set.insert(*kind));
            assert_eq!(Ambiguities::of(path.as_bytes()), set, "{path}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_beyond() {
        let found = Ambiguities::of(b"/a//b;c");
        assert_eq!(found.beyond(Ambiguities::default()), Some(Ambiguity::EmptySegment));
        let mut allowed = Ambiguities::default();
        allowed.insert(Ambiguity::EmptySegment);
        assert_eq!(found.beyond(allowed), Some(Ambiguity::Semicolon));
        allowed.insert(Ambiguity::Semicolon);
        assert_eq!(found.beyond(allowed), None);
    }
}
