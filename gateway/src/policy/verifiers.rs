//! Where passwords are verified: on threads of their own, as each takes as long as thousands of requests.
//! What has been right is remembered for a while, by a keyed hash.

#![expect(clippy::disallowed_types, reason = "workers and verifying threads meet here")]

use std::num::NonZero;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand};

use super::password_hash::PasswordHash;
use crate::net::rt::Bell;

/// Passwords that may wait, for each policy: a few seconds' work.
const QUEUE_MAX: usize = 64;

/// Half of the machine may verify, and no more than this.
const THREADS_MAX: usize = 4;

/// Serving requests comes first (nice(2), which on Linux is a thread's own).
const NICE: i32 = 10;

/// Credentials that are remembered: 64 KiB.
const REMEMBERED: usize = 4096;

/// Verifies passwords for all workers. Its threads end with it.
#[derive(Debug)]
pub(super) struct Verifiers {
    jobs: SyncSender<Job>,
    /// Nobody outside can compute what it makes.
    key: hmac::Key,
    began: Instant,
    remembered: Box<[Slot]>,
}

/// One that has been right: half of its hash, and until when that counts, in seconds since the beginning.
/// Two writers at once may mix theirs, which makes one of them last as long as the other.
#[derive(Debug, Default)]
struct Slot {
    tag: AtomicU64,
    until: AtomicU64,
}

struct Job {
    password: Vec<u8>,
    hash: PasswordHash,
    answer: Arc<OnceLock<bool>>,
    /// Wakes who waits for the answer once it is dropped.
    _waiter: UnixStream,
}

/// A password that is being verified. Once it is dropped, nobody does so in vain.
pub(super) struct Verification {
    answer: Arc<OnceLock<bool>>,
    bell: Bell,
}

impl Verification {
    /// Whether it is right; `None` if nobody could say.
    pub async fn answer(self) -> Option<bool> {
        self.bell.rung().await;
        self.answer.get().copied()
    }
}

impl Verifiers {
    /// Starts the threads. `None` where there is nothing to make them of.
    pub fn start() -> Option<Self> {
        let (jobs, receiver) = sync_channel(QUEUE_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let half = thread::available_parallelism().map_or(1, NonZero::get) / 2;
        for _ in 0..half.clamp(1, THREADS_MAX) {
            let receiver = Arc::clone(&receiver);
            let thread = thread::Builder::new().name("passwords".to_owned());
            thread.spawn(move || verify(&receiver)).ok()?;
        }
        let mut secret = [0; 32];
        rand::fill(&mut secret).ok()?;
        Some(Self {
            jobs,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            began: Instant::now(),
            remembered: (0..REMEMBERED).map(|_| Slot::default()).collect(),
        })
    }

    /// Has a password verified; `None` if too many wait for that.
    pub fn verify(&self, password: &[u8], hash: &PasswordHash) -> Option<Verification> {
        let answer = Arc::default();
        let (bell, waiter) = Bell::pair().ok()?;
        let job = Job {
            password: password.to_vec(),
            hash: hash.clone(),
            answer: Arc::clone(&answer),
            _waiter: waiter,
        };
        self.jobs.try_send(job).ok().map(|()| Verification { answer, bell })
    }

    /// A number that stands for `text`, as long as this lives.
    pub fn point(&self, text: &[u8]) -> u64 {
        self.halves(text).0
    }

    /// Whether these credentials have been right of late.
    pub fn remembers(&self, credentials: &[u8], now: Instant) -> bool {
        let (place, tag) = self.halves(credentials);
        self.slot(place).is_some_and(|slot| {
            slot.tag.load(Ordering::Relaxed) == tag
                && self.seconds(now) < slot.until.load(Ordering::Relaxed)
        })
    }

    /// Takes down that they are right, for so long.
    pub fn remember(&self, credentials: &[u8], now: Instant, lasts: Duration) {
        let (place, tag) = self.halves(credentials);
        if let Some(slot) = self.slot(place) {
            slot.tag.store(tag, Ordering::Relaxed);
            slot.until.store(self.seconds(now) + lasts.as_secs(), Ordering::Relaxed);
        }
    }

    fn halves(&self, text: &[u8]) -> (u64, u64) {
        let hash = hmac::sign(&self.key, text);
        let mut halves = hash.as_ref().chunks_exact(8).filter_map(|half| half.try_into().ok());
        let mut half = || halves.next().map_or(0, u64::from_ne_bytes);
        (half(), half())
    }

    fn slot(&self, place: u64) -> Option<&Slot> {
        self.remembered.get(usize::try_from(place % REMEMBERED as u64).ok()?)
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }
}

fn verify(jobs: &Mutex<Receiver<Job>>) {
    // Where that is refused, they are as quick as others.
    let _ = rustix::process::nice(NICE);
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if Arc::strong_count(&job.answer) > 1 {
            let _ = job.answer.set(job.hash.is_of(&job.password));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_been_right_is_remembered_for_a_while() {
        let verifiers = Verifiers::start().unwrap();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(!verifiers.remembers(b"alice:secret", begun));
        verifiers.remember(b"alice:secret", begun, Duration::from_secs(10));
        assert!(verifiers.remembers(b"alice:secret", after(8)));
        assert!(!verifiers.remembers(b"alice:secret", after(12)));
        assert!(!verifiers.remembers(b"alice:secre", begun));
        assert!(!Verifiers::start().unwrap().remembers(b"alice:secret", begun));
    }
}
