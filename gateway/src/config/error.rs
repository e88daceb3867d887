//! Why a configuration was refused: every mistake, in one line each, with its place.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The longest text a message repeats; a key or value may be as long as the file.
pub(super) const SHOWN_CHARS_MAX: usize = 60;

/// Why there is no configuration.
#[derive(Debug)]
pub enum Error {
    /// The file could not be read.
    Unreadable {
        /// The file as named by the user.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file, the flags or both are wrong.
    Wrong {
        /// The file, if there was one, as named by the user.
        path: Option<PathBuf>,
        /// At least one, flags first, then in the order of lines.
        problems: Vec<Problem>,
    },
}

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

impl Error {
    /// What the process exits with: 2 for a mistake in the configuration, 1 for any other failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreadable { .. } => 1,
            Self::Wrong { .. } => 2,
        }
    }
}

impl fmt::Display for Error {
    /// One line a problem, without a final newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Wrong { path, problems } => {
                let lines = problems.iter().map(|problem| problem.line(path.as_deref()));
                f.write_str(&lines.collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

impl Problem {
    /// `config/gateway.toml:14: routes[2].upstream: no upstream named "billing" (have: api, web)`.
    fn line(&self, path: Option<&Path>) -> String {
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

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { cause, .. } => Some(cause),
            Self::Wrong { .. } => None,
        }
    }
}

/// A value as a message repeats it: quoted, on one line, not too long.
pub(super) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    format!("{start:?}{more}")
}
