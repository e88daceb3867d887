//! One line a request: formatted into a worker's own buffer, written by one thread for all.

use std::path::PathBuf;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// The combined log format of Apache and nginx.
    Combined,
}

/// The `[access_log]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How a line looks.
    pub format: Format,
    /// Where lines go; `None` is standard output.
    pub path: Option<PathBuf>,
}

/// A worker's way to the writer thread.
#[derive(Clone, Debug)]
pub struct Sender;
