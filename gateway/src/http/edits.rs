//! Changes to the fields of a head on its way through.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::headers::is_value_byte;

/// Which fields are removed from a head, and which are added to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    removed: Vec<Bytes>,
    added: Vec<(Bytes, Bytes)>,
}

impl Edits {
    /// Adds a field, beside those of the same name. What may not stand in a value becomes a space.
    pub fn add(&mut self, name: Bytes, value: Bytes) {
        self.added.push((name, clean(value)));
    }

    /// Removes the fields of a name, those added so far included.
    pub fn remove(&mut self, name: Bytes) {
        self.added.retain(|(added, _)| !added.eq_ignore_ascii_case(&name));
        if !self.removes(&name) {
            self.removed.push(name);
        }
    }

    /// Adds a field in place of all of the same name.
    pub fn set(&mut self, name: Bytes, value: Bytes) {
        self.remove(name.clone());
        self.add(name, value);
    }

    /// Whether the fields of a name are removed.
    pub fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name))
    }

    /// Writes the lines of what is added.
    pub fn write(&self, out: &mut BytesMut) {
        for (name, value) in &self.added {
            out.put_slice(name);
            out.put_slice(b": ");
            out.put_slice(value);
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
