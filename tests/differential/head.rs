//! A head taken apart as generously as anybody would, for the rules to look at. Nothing here is the
//! gateway's code: the rules state again what it ought to do.

/// Lines end in LF, with or without CR before it, and the head in the first empty one.
pub struct Head<'a> {
    /// Up to the end of the head, or all there is.
    pub bytes: &'a [u8],
    /// Whether its end is there.
    pub is_whole: bool,
    /// How many empty lines came before it.
    pub empty_lines: usize,
    /// Without those.
    pub length: usize,
    /// The request line, without its end.
    pub line: &'a [u8],
    pub method: &'a [u8],
    /// All between the first space and the last.
    pub target: &'a [u8],
    pub version: &'a [u8],
    /// The lines behind the request line.
    pub lines: Vec<&'a [u8]>,
}

impl<'a> Head<'a> {
    pub fn of(all: &'a [u8]) -> Self {
        let mut at = 0;
        let mut next = || {
            let rest = &all[at..];
            let line = &rest[..=rest.iter().position(|byte| *byte == b'\n')?];
            at += line.len();
            Some(line.strip_suffix(b"\r\n").unwrap_or(&line[..line.len() - 1]))
        };
        let (mut empty_lines, mut lines, mut is_whole) = (0, Vec::new(), false);
        while !is_whole && let Some(line) = next() {
            match (line.is_empty(), lines.is_empty()) {
                (true, true) => empty_lines += 1,
                (true, false) => is_whole = true,
                (false, _) => lines.push(line),
            }
        }
        let bytes = if is_whole { &all[..at] } else { all };
        let line = if lines.is_empty() { &[][..] } else { lines.remove(0) };
        let (method, rest) = split(line, line.iter().position(|byte| *byte == b' '));
        let (target, version) = split(rest, rest.iter().rposition(|byte| *byte == b' '));
        let length = bytes.iter().skip_while(|byte| b"\r\n".contains(byte)).count();
        Self { bytes, is_whole, empty_lines, length, line, method, target, version, lines }
    }

    /// Values of the fields of this name, as text in which every byte is a char.
    pub fn values(&self, name: &str) -> Vec<String> {
        let fields = self.lines.iter().filter_map(|line| {
            let (field, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
            field.eq_ignore_ascii_case(name.as_bytes()).then(|| text(value.split_at(1).1))
        });
        fields.map(|value| value.trim_matches([' ', '\t']).to_owned()).collect()
    }

    /// Members of the lists in all fields of this name; empty ones too.
    pub fn members(&self, name: &str) -> Vec<String> {
        let values = self.values(name);
        let members = values.iter().flat_map(|value| value.split(','));
        members.map(|member| member.trim_matches([' ', '\t']).to_owned()).collect()
    }

    pub fn target(&self) -> String {
        text(self.target)
    }

    /// The authority and what follows it, if the target has the absolute form of this scheme.
    pub fn absolute(&self) -> Option<(String, String)> {
        let target = self.target();
        let (scheme, rest) = target.split_once("://")?;
        let known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        known.then(|| (rest[..end].to_owned(), rest[end..].to_owned()))
    }
}

fn split(line: &[u8], at: Option<usize>) -> (&[u8], &[u8]) {
    at.map_or((line, &[]), |at| (&line[..at], &line[at + 1..]))
}

/// Every byte as the char of the same number.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// `uri-host [":" port]` (RFC 9110 §7.2).
pub fn is_authority(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').unwrap_or((rest, "no end"));
            (address.parse::<std::net::Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=".contains(c);
            let encoded = name.split('%').skip(1).all(|after| {
                after.get(..2).is_some_and(|two| two.chars().all(|c| c.is_ascii_hexdigit()))
            });
            (!name.is_empty() && name.chars().all(is_name) && encoded, port)
        }
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = digits.is_empty()
        || digits.chars().all(|c| c.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    is_host && is_port && (digits.is_empty() || port.len() > digits.len())
}
