//! Why a configuration was refused: every mistake, in one line each, with its place.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::document::Problem;

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

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { cause, .. } => Some(cause),
            Self::Wrong { .. } => None,
        }
    }
}
