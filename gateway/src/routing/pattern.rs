//! Regular expressions in routes.

use std::hash::{Hash, Hasher};
use std::str::FromStr;

use regex::bytes::{Captures, Regex, RegexBuilder};

/// Bytes a compiled expression may take; matching is linear in the text whatever it says.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A regular expression that must match the whole of a text, byte by byte.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// What its groups match.
    pub fn captures<'t>(&self, text: &'t [u8]) -> Option<Captures<'t>> {
        self.regex.captures(text)
    }

    /// Whether it has a group of this name or number.
    pub fn has_group(&self, name: &str) -> bool {
        match name.parse::<usize>() {
            Ok(number) => number < self.regex.captures_len(),
            Err(_) => self.regex.capture_names().flatten().any(|group| group == name),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(&format!("^(?:{text})$"))
            .unicode(false)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| format!("{text:?}: {}", last_line(&error.to_string())))?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

/// The rest only draws where.
fn last_line(message: &str) -> &str {
    let line = message.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line)
}

/// Compiled anew, since copies share the memory that matching takes, and with it a lock.
impl Clone for Pattern {
    fn clone(&self) -> Self {
        let (text, regex) = (self.text.clone(), self.regex.clone());
        text.parse().unwrap_or(Self { text, regex })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_matches_or_nothing() {
        let pattern: Pattern = "/v(?<version>[0-9]+)/a|/b".parse().unwrap();
        assert!(pattern.matches(b"/v1/a") && pattern.matches(b"/b"));
        assert!(
            !pattern.matches(b"/v1/a/x") && !pattern.matches(b"x/b") && !pattern.matches(b"/b\n")
        );
        assert!(pattern.has_group("version") && pattern.has_group("1") && pattern.has_group("0"));
        assert!(!pattern.has_group("2") && !pattern.has_group("other"));
        assert_eq!(&pattern.captures(b"/v12/a").unwrap()["version"], b"12");
        let error = "(".parse::<Pattern>().unwrap_err();
        assert_eq!(error, "\"(\": unclosed group");
        assert!("(?:a{1000}){1000}".parse::<Pattern>().is_err());
    }
}
