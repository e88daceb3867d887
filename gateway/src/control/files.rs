//! Watches the files that TLS and policies are set up from: certificates are replaced by whoever renews
//! them, keys by whoever hands them out, and nobody should have to remember to say so.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep, timeout};

use super::Event;

/// How long nothing must happen before files are looked at: a chain and its key are two writes.
const QUIET: Duration = Duration::from_secs(1);

/// How long a change waits at most for that.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks for folders that are not there.
const RETRY: Duration = Duration::from_secs(2);

/// Links followed, one behind the other.
const LINKS_MAX: usize = 8;

/// What says that a file in a folder may be another than before.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Sends [`Event::FilesChanged`] when any of the files that `files` names last has changed. Ends with
/// the sender of `files`.
///
/// # Errors
/// When the system cannot watch.
pub(super) fn watch(
    events: UnboundedSender<Event>,
    files: UnboundedReceiver<Vec<PathBuf>>,
) -> io::Result<()> {
    let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    #[expect(deprecated, reason = "unsound only for what does not own its descriptor")]
    let inotify = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
    let watch = Watch {
        inotify,
        watched: HashSet::new(),
        files: Vec::new(),
        seen: Vec::new(),
        missing: false,
    };
    tokio::spawn(watch.run(events, files));
    Ok(())
}

/// Adds the folder a file is in, and those of the links on the way to it: certbot and Kubernetes swap
/// links, of files and of folders.
fn add_folders(path: &Path, links: usize, folders: &mut BTreeSet<PathBuf>) {
    folders.insert(folder_of(path));
    for link in path.ancestors() {
        if let Ok(target) = fs::read_link(link)
            && links > 0
        {
            folders.insert(folder_of(link));
            let behind = path.strip_prefix(link).unwrap_or(Path::new(""));
            add_folders(&folder_of(link).join(target).join(behind), links - 1, folders);
        }
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        None => path.to_owned(),
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
    }
}

struct Watch {
    inotify: AsyncFd<OwnedFd>,
    /// Watched folders, by the numbers the kernel gave them.
    watched: HashSet<i32>,
    files: Vec<PathBuf>,
    seen: Vec<Option<Seen>>,
    /// Whether a folder is not there to be watched.
    missing: bool,
}

/// What tells a file from the one that was there before.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    async fn run(
        mut self,
        events: UnboundedSender<Event>,
        mut files: UnboundedReceiver<Vec<PathBuf>>,
    ) {
        loop {
            tokio::select! {
                next = files.recv() => match next {
                    None => return,
                    Some(next) => {
                        self.files = next;
                        self.seen = self.look();
                        self.watch_folders();
                    }
                },
                changed = self.changed() => {
                    if let Err(error) = changed {
                        tracing::warn!("files are no longer watched: {error}");
                        return;
                    }
                    self.settle().await;
                    self.tell(&events);
                }
                () = sleep(RETRY), if self.missing => {
                    self.watch_folders();
                    self.tell(&events);
                }
            }
        }
    }

    /// Watches the folders in which something may become another file; no others.
    fn watch_folders(&mut self) {
        let mut wanted = BTreeSet::new();
        for file in &self.files {
            add_folders(file, LINKS_MAX, &mut wanted);
        }
        let descriptor = self.inotify.get_ref();
        let mut watched = HashSet::new();
        self.missing = false;
        for folder in wanted {
            match inotify::add_watch(descriptor, &folder, CHANGES) {
                Ok(number) => drop(watched.insert(number)),
                Err(Errno::NOENT | Errno::NOTDIR) => self.missing = true,
                Err(error) => tracing::warn!(
                    "changes in {folder:?} are noticed only on SIGHUP: {}",
                    io::Error::from(error)
                ),
            }
        }
        for &number in self.watched.difference(&watched) {
            // One whose folder is gone has gone with it.
            let _ = inotify::remove_watch(descriptor, number);
        }
        self.watched = watched;
    }

    /// Waits until something has happened in a folder.
    async fn changed(&mut self) -> io::Result<()> {
        let mut ready = self.inotify.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::IGNORED) => {
                    self.watched.remove(&event.wd());
                    self.missing = true;
                }
                Ok(_) => {}
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }

    /// Waits until nothing has happened for a while.
    async fn settle(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if !matches!(timeout(QUIET, self.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn tell(&mut self, events: &UnboundedSender<Event>) {
        let seen = self.look();
        if self.seen != seen {
            self.seen = seen;
            // A link may lead elsewhere now.
            self.watch_folders();
            let _ = events.send(Event::FilesChanged);
        }
    }

    fn look(&self) -> Vec<Option<Seen>> {
        let seen = self.files.iter().map(|file| {
            let metadata = fs::metadata(file).ok()?;
            Some(Seen {
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        });
        seen.collect()
    }
}
