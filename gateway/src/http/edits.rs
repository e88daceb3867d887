//! Changes to a head on its way through.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::headers::{is_value_byte, members_by, same_but_underscores, trim_ows};

/// Which fields are removed from a head, and which are added to it; what takes the place of its query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    removed: Vec<Bytes>,
    added: Vec<(Bytes, Bytes)>,
    cookies: Option<CookieFlags>,
    query: Option<Bytes>,
}

/// Attributes that cookies get where they are not there (RFC 6265 §5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieFlags {
    /// Only over TLS.
    pub secure: bool,
    /// Not for scripts.
    pub http_only: bool,
    /// Whether other sites' requests bring it, as `; SameSite=Lax`.
    pub same_site: Option<Bytes>,
}

impl CookieFlags {
    /// Writes what a Set-Cookie field's value lacks, behind it.
    fn write(&self, out: &mut BytesMut, value: &[u8]) {
        let has = |name: &[u8]| {
            let attributes = members_by(value, b';').skip(1);
            let mut names = attributes.filter_map(|one| one.split(|byte| *byte == b'=').next());
            names.any(|own| trim_ows(own).eq_ignore_ascii_case(name))
        };
        if let Some(same_site) = self.same_site.as_ref().filter(|_| !has(b"samesite")) {
            out.put_slice(same_site);
        }
        if self.http_only && !has(b"httponly") {
            out.put_slice(b"; HttpOnly");
        }
        if self.secure && !has(b"secure") {
            out.put_slice(b"; Secure");
        }
    }
}

impl Edits {
    /// Adds a field, beside those of the same name. What may not stand in a value becomes a space.
    pub fn add(&mut self, name: Bytes, value: Bytes) {
        self.added.push((name, clean(value)));
    }

    /// Removes the fields of a name, those added so far included.
    pub fn remove(&mut self, name: Bytes) {
        self.added.retain(|(added, _)| !added.eq_ignore_ascii_case(&name));
        self.remove_received(name);
    }

    /// Removes those fields of a name that have come, and none of those added so far.
    pub fn remove_received(&mut self, name: Bytes) {
        if !self.removes(&name) {
            self.removed.push(name);
        }
    }

    /// Adds a field in place of all of the same name.
    pub fn set(&mut self, name: Bytes, value: Bytes) {
        self.remove(name.clone());
        self.add(name, value);
    }

    /// Puts a query, with its question mark, in the place of the one there was.
    pub fn set_query(&mut self, query: Bytes) {
        self.query = Some(query);
    }

    /// What takes the place of the query, if anything does.
    pub fn query(&self) -> Option<&[u8]> {
        self.query.as_deref()
    }

    /// The names of fields that are removed.
    pub fn removed(&self) -> impl Iterator<Item = &[u8]> {
        self.removed.iter().map(|name| &**name)
    }

    /// The fields that are added.
    pub fn added(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.added.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The values of a field that are added.
    pub fn values(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        let own = |(added, _): &&(Bytes, Bytes)| added.eq_ignore_ascii_case(name);
        self.added.iter().filter(own).map(|(_, value)| &value[..])
    }

    /// Adds attributes to the cookies that pass.
    pub fn flag_cookies(&mut self, flags: CookieFlags) {
        self.cookies = Some(flags);
    }

    /// Writes what a field that passes has behind its value.
    pub fn write_behind(&self, out: &mut BytesMut, name: &[u8], value: &[u8]) {
        if let Some(flags) = &self.cookies
            && name.eq_ignore_ascii_case(b"set-cookie")
        {
            flags.write(out, value);
        }
    }

    /// Whether the fields of a name that come are removed: of one that CGI and its heirs make the same, too.
    pub fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| same_but_underscores(removed, name))
    }

    /// Writes the lines of what is added.
    pub fn write(&self, out: &mut BytesMut) {
        for (name, value) in &self.added {
            out.put_slice(name);
            out.put_slice(b": ");
            out.put_slice(value);
            self.write_behind(out, name, value);
            out.put_slice(b"\r\n");
        }
    }
}

fn clean(value: Bytes) -> Bytes {
    if value.iter().all(|byte| is_value_byte(*byte)) {
        return value;
    }
    value.iter().map(|byte| if is_value_byte(*byte) { *byte } else { b' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn cookies_get_what_they_lack() {
        let mut edits = Edits::default();
        let same_site = Some(bytes("; SameSite=Lax"));
        edits.flag_cookies(CookieFlags { secure: true, http_only: true, same_site });
        let behind = |value: &str| {
            let mut out = BytesMut::new();
            edits.write_behind(&mut out, b"Set-Cookie", value.as_bytes());
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(behind("a=secure"), "; SameSite=Lax; HttpOnly; Secure");
        assert_eq!(behind("a=b; samesite = None ;SECURE"), "; HttpOnly");
        assert_eq!(behind("secure=1; Path=/; HttpOnly; SameSite=Strict"), "; Secure");
        let mut out = BytesMut::new();
        edits.write_behind(&mut out, b"cookie", b"a=b");
        assert!(out.is_empty());
    }

    #[test]
    fn the_last_word_counts() {
        let mut edits = Edits::default();
        edits.add(bytes("vary"), bytes("origin"));
        edits.add(bytes("Vary"), bytes("accept"));
        edits.set(bytes("x-a"), bytes("1"));
        edits.set(bytes("X-A"), bytes("2\r\nx-b: 3"));
        edits.remove(bytes("server"));
        let mut out = BytesMut::new();
        edits.write(&mut out);
        assert_eq!(out, "vary: origin\r\nVary: accept\r\nX-A: 2  x-b: 3\r\n");
        assert!(edits.removes(b"x-a") && edits.removes(b"SERVER") && !edits.removes(b"vary"));
    }
}
