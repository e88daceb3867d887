//! One line a request: formatted into a worker's own buffer, written by one thread for all.
//!
//! [`AccessLog`] belongs to a worker and never waits: when the writer cannot keep up, lines are
//! dropped and counted. [`Writer`] belongs to control.

#![expect(clippy::disallowed_types, reason = "lines go from the workers to the writer's thread")]

mod clock;
mod line;
mod writer;

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::metrics;
use clock::Clock;
pub use line::Entry;
pub use writer::{Sender, Writer};

/// A worker's buffer goes to the writer when it holds this much: few enough system calls, and
/// never more than this and one line in a worker.
const FLUSH_BYTES: usize = 32 * 1024;

/// Emptied buffers on their way back to one worker. More than one is rare: the writer is faster.
const SPARE_BUFFERS: usize = 2;

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

/// One worker's end of the access log.
#[derive(Debug)]
pub struct AccessLog {
    sender: Sender,
    metrics: Arc<metrics::Worker>,
    clock: Clock,
    buffer: Vec<u8>,
    lines: u64,
    spare: Receiver<Vec<u8>>,
    give_back: SyncSender<Vec<u8>>,
}

impl AccessLog {
    /// An empty buffer in front of `sender`; lines that get lost are counted in `metrics`, which
    /// the calling thread owns.
    pub fn new(sender: Sender, metrics: Arc<metrics::Worker>) -> Self {
        let (give_back, spare) = sync_channel(SPARE_BUFFERS);
        let clock = Clock::new(sender.format());
        Self { sender, metrics, clock, buffer: Vec::new(), lines: 0, spare, give_back }
    }

    /// Takes one request down. True when the buffer was empty: the caller then sees to it that
    /// [`flush`](Self::flush) is called before long.
    pub fn record(&mut self, entry: &Entry<'_>) -> bool {
        let was_empty = self.buffer.is_empty();
        match self.sender.format() {
            Format::Json => line::json(&mut self.buffer, &mut self.clock, entry),
            Format::Combined => line::combined(&mut self.buffer, &mut self.clock, entry),
        }
        self.lines += 1;
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush();
        }
        was_empty && !self.buffer.is_empty()
    }

    /// Hands what was recorded to the writer, or drops and counts it if the writer is behind.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let lines = mem::take(&mut self.lines);
        let empty = self.spare.try_recv().unwrap_or_default();
        let full = mem::replace(&mut self.buffer, empty);
        if let Err(mut refused) = self.sender.send(full, &self.give_back) {
            self.metrics.access_log_dropped.add(lines);
            refused.clear();
            self.buffer = refused;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use line::tests::entry;

    #[test]
    fn record_asks_for_a_flush_once_per_buffer() {
        let (sender, _queue) = Sender::unread(Format::Json, 1);
        let mut log = AccessLog::new(sender, Arc::new(metrics::Worker::new()));

        assert!(log.record(&entry()));
        assert!(!log.record(&entry()));
        log.flush();
        assert!(log.record(&entry()));
    }

    #[test]
    fn a_full_buffer_flushes_itself() {
        let (sender, queue) = Sender::unread(Format::Json, 1);
        let mut log = AccessLog::new(sender, Arc::new(metrics::Worker::new()));
        let target = [b'a'; 4096];

        for _ in 0..FLUSH_BYTES / 4096 {
            log.record(&Entry { target: &target, ..entry() });
        }

        assert!(log.buffer.is_empty());
        assert_eq!(queue.try_iter().count(), 1);
    }

    #[test]
    fn lines_that_find_the_queue_full_are_counted_and_nothing_waits() {
        let (sender, _queue) = Sender::unread(Format::Combined, 1);
        let metrics = Arc::new(metrics::Worker::new());
        let mut log = AccessLog::new(sender, Arc::clone(&metrics));

        for lines in 1..=3 {
            for _ in 0..lines {
                log.record(&entry());
            }
            log.flush();
        }

        assert_eq!(metrics.access_log_dropped.value(), 2 + 3);
    }
}
