//! The thread that writes: every worker's lines to one file, in batches, as fast as the file takes
//! them. What it cannot write is counted and reported, never retried: the workers go on.

#![expect(clippy::disallowed_types, reason = "control reads what the writer's thread counts")]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Format, Settings};
use crate::telemetry::metrics::Counter;

/// Batches waiting for the writer: 8 MiB when every one is full, seconds of traffic.
const QUEUE_BATCHES: usize = 256;

/// How long the end of the program waits for an output that blocks.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// A broken output is reported at most this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What the writer is told.
pub(super) enum Message {
    /// Whole lines, and where to return the buffer.
    Lines { bytes: Vec<u8>, give_back: SyncSender<Vec<u8>> },
    /// Nothing comes after this.
    Finish,
}

/// A worker's way to the writer's thread.
#[derive(Clone, Debug)]
pub struct Sender {
    format: Format,
    queue: SyncSender<Message>,
}

impl Sender {
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Hands over `bytes`, or gives them back if the queue is full or the writer gone.
    pub(super) fn send(
        &self,
        bytes: Vec<u8>,
        give_back: &SyncSender<Vec<u8>>,
    ) -> Result<(), Vec<u8>> {
        let message = Message::Lines { bytes, give_back: give_back.clone() };
        match self.queue.try_send(message) {
            Err(
                TrySendError::Full(Message::Lines { bytes, .. })
                | TrySendError::Disconnected(Message::Lines { bytes, .. }),
            ) => Err(bytes),
            _ => Ok(()),
        }
    }

    /// A sender whose queue nobody empties.
    #[cfg(test)]
    pub(super) fn unread(format: Format, batches: usize) -> (Self, Receiver<Message>) {
        let (queue, messages) = sync_channel(batches);
        (Self { format, queue }, messages)
    }
}

/// Control's end of the writer's thread.
#[derive(Debug)]
pub struct Writer {
    queue: SyncSender<Message>,
    finished: Receiver<()>,
    lines_lost: Arc<Counter>,
}

impl Writer {
    /// Starts the thread, which writes to what [`Settings::open`] has opened.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(format: Format, file: File) -> io::Result<(Sender, Self)> {
        let (queue, messages) = sync_channel(QUEUE_BATCHES);
        // Nothing is ever sent: the thread's end closes the channel.
        let (running, finished) = sync_channel::<()>(0);
        let lines_lost = Arc::new(Counter::default());
        let output = Output::new(file, Arc::clone(&lines_lost));
        thread::Builder::new().name("access-log".into()).spawn(move || {
            let _running = running;
            write_all(messages, output);
        })?;
        let sender = Sender { format, queue: queue.clone() };
        Ok((sender, Self { queue, finished, lines_lost }))
    }

    /// Counts lines the output did not take.
    pub fn lines_lost(&self) -> Arc<Counter> {
        Arc::clone(&self.lines_lost)
    }

    /// Writes what is queued and ends the thread. An output that blocks is given up after two
    /// seconds, with an error in the log.
    pub fn finish(self) {
        let deadline = Instant::now() + FINISH_TIMEOUT;
        while let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Finish) {
            if Instant::now() >= deadline {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = self.finished.recv_timeout(left) {
            tracing::error!("access log: the output blocks; its last lines are lost");
        }
    }
}

impl Settings {
    /// The file to append to, or a second descriptor of standard output: unlike `io::stdout()` it
    /// neither looks for line ends nor takes a lock.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> io::Result<File> {
        match &self.path {
            // Addresses of clients are nobody else's business: no access for others.
            Some(path) => OpenOptions::new().append(true).create(true).mode(0o640).open(path),
            None => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
        }
    }
}

fn write_all(messages: Receiver<Message>, mut output: Output) {
    while let Ok(Message::Lines { mut bytes, give_back }) = messages.recv() {
        output.write(&bytes);
        bytes.clear();
        // The worker has its spare buffers, or is gone: then this one is freed.
        let _ = give_back.try_send(bytes);
    }
}

struct Output {
    file: File,
    lines_lost: Arc<Counter>,
    /// The last write ended inside a line.
    torn: bool,
    reported: Option<Instant>,
}

impl Output {
    fn new(file: File, lines_lost: Arc<Counter>) -> Self {
        Self { file, lines_lost, torn: false, reported: None }
    }

    fn write(&mut self, lines: &[u8]) {
        if self.torn && self.file.write_all(b"\n").is_ok() {
            self.torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(written) if written > 0 => {
                    let (done, left) = rest.split_at(written);
                    self.torn = !done.ends_with(b"\n");
                    rest = left;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) => return self.lose(rest, &io::ErrorKind::WriteZero.into()),
                Err(error) => return self.lose(rest, &error),
            }
        }
    }

    fn lose(&mut self, rest: &[u8], error: &io::Error) {
        self.lines_lost.add(memchr::memchr_iter(b'\n', rest).count() as u64);
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            self.reported = Some(Instant::now());
            let lost = self.lines_lost.value();
            tracing::error!("access log: cannot write: {error} ({lost} lines lost since start)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process;

    fn scratch_file(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("gateway-{}-{name}.log", process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn to(path: &Path) -> Settings {
        Settings { format: Format::Json, path: Some(path.to_owned()) }
    }

    fn start(settings: &Settings) -> (Sender, Writer) {
        Writer::start(settings.format, settings.open().unwrap()).unwrap()
    }

    #[test]
    fn finish_waits_until_all_is_written_and_buffers_come_back() {
        let path = scratch_file("finish");
        fs::write(&path, "before\n").unwrap();
        let (sender, writer) = start(&to(&path));
        let (give_back, spare) = sync_channel(2);

        sender.send(b"one\ntwo\n".to_vec(), &give_back).unwrap();
        sender.send(b"three\n".to_vec(), &give_back).unwrap();
        writer.finish();

        assert_eq!(fs::read_to_string(&path).unwrap(), "before\none\ntwo\nthree\n");
        assert!(spare.try_iter().all(|buffer| buffer.is_empty() && buffer.capacity() > 0));
        assert_eq!(sender.send(b"late\n".to_vec(), &give_back), Err(b"late\n".to_vec()));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_the_output_refuses_is_counted() {
        let (sender, writer) = start(&to(Path::new("/dev/full")));
        let lost = writer.lines_lost();
        let (give_back, _spare) = sync_channel(2);

        sender.send(b"one\ntwo\n".to_vec(), &give_back).unwrap();
        sender.send(b"three\n".to_vec(), &give_back).unwrap();
        writer.finish();

        assert_eq!(lost.value(), 3);
    }

    #[test]
    fn a_line_after_a_torn_one_begins_anew() {
        let path = scratch_file("torn");
        let mut output = Output::new(to(&path).open().unwrap(), Arc::default());
        output.write(b"whole\nto");
        output.write(b"next\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\nto\nnext\n");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        let error = to(Path::new("/nowhere/access.log")).open().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
