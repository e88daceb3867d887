//! Why a configuration was refused: every mistake, in one line each, with its place.

use std::fmt;
use std::io;
use std::path::PathBuf;

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
                for (position, Problem { place, key, message }) in problems.iter().enumerate() {
                    let newline = if position == 0 { "" } else { "\n" };
                    f.write_str(newline)?;
                    if let (Some(path), Place::Whole | Place::Line(_)) = (path, place) {
                        write!(f, "{}:", path.display())?;
                    }
                    match place {
                        Place::Whole if path.is_some() => f.write_str(" ")?,
                        Place::Whole => {}
                        Place::Line(line) => write!(f, "{line}: ")?,
                        Place::Flag(flag) => write!(f, "{flag}: ")?,
                    }
                    // A flag stands for its key.
                    if !key.is_empty() && !matches!(place, Place::Flag(_)) {
                        write!(f, "{key}: ")?;
                    }
                    f.write_str(message)?;
                }
                Ok(())
            }
        }
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
