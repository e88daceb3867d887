//! A mistake in what a person wrote, and its place.

use std::path::Path;

/// The longest text a message repeats; a key or value may be as long as the file.
pub(crate) const SHOWN_CHARS_MAX: usize = 60;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was made.
    pub place: Place,
    /// The key, as `routes[2].upstream` (counted from 0); empty where there is none to name.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The configuration as a whole: something is nowhere.
    Whole,
    /// A flag on the command line.
    Flag(&'static str),
    /// A line of the file, counted from 1.
    Line(usize),
}

impl Problem {
    /// `config/gateway.toml:14: routes[2].upstream: no upstream named "billing" (have: api, web)`.
    pub(crate) fn line(&self, path: Option<&Path>) -> String {
        let Self { place, key, message } = self;
        let file = path.map(|path| format!("{}:", path.display())).unwrap_or_default();
        let place = match place {
            // Its name says which key is meant.
            Place::Flag(flag) => return format!("{flag}: {message}"),
            Place::Line(line) => format!("{file}{line}:"),
            Place::Whole => file,
        };
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        format!("{place} {key}{message}").trim_start().to_owned()
    }
}

/// A value as a message repeats it: quoted, on one line, not too long.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    format!("{start:?}{more}")
}
