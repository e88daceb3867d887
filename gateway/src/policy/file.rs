//! Files that policies read: entries, one a line.

use std::fs;
use std::path::Path;

/// Bytes of such a file: some 500,000 networks, or 150,000 keys.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What `parse` makes of each line of a file. What follows one of `comments` is none of it, nor is a line
/// with nothing else. Blocks.
///
/// # Errors
/// When it cannot be read, or is too large, or a line is wrong: with the path, and the line's number.
pub(super) fn read<T>(
    path: &Path,
    comments: &[char],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let unreadable = |error: std::io::Error| format!("{path:?}: {error}");
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(format!("{path:?}: larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.split(comments).next().unwrap_or_default().trim();
        (!line.is_empty()).then_some((index, line))
    });
    let read = lines.map(|(index, line)| {
        parse(line).map_err(|message| format!("{path:?}:{}: {message}", index + 1))
    });
    read.collect()
}
