//! Answers that let somebody in, which count for a while.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context as Digest, SHA256};
use bytes::BytesMut;

use super::super::place::{Place, shown};
use super::Passed;
use crate::document::section::Section;
use crate::document::units::duration;
use crate::document::values::{boolean, integer};
use crate::exchange::Request;
use crate::http::edits::Edits;

const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const ENTRIES: RangeInclusive<i64> = 1..=65_536;

/// For how long an answer counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// What tells one client from another.
    key: Vec<Place>,
    /// Whether the answer is the same for every method, host and path.
    anywhere: bool,
    pub ttl: Duration,
    pub entries: usize,
}

impl Cache {
    pub fn read(table: &mut Section<'_>) -> Self {
        let hint = "write where a request says whose it is: [\"cookie:session\", \"bearer\"]";
        Self {
            key: table.required("key", hint, Place::read_all).unwrap_or_default(),
            anywhere: table.value("anywhere", false, boolean),
            ttl: table.value("ttl", Duration::from_secs(10), duration(TTL)),
            entries: table.value("entries", 1024, integer(ENTRIES)),
        }
    }

    /// Who asks for what; `None` for who shows nothing. What the service is told beside the client's own fields is a
    /// part of it, as it may decide by that: `edits` are those that it is told.
    pub fn key(&self, request: &Request<'_>, edits: &Edits) -> Option<Key> {
        let mut digest = Digest::new(&SHA256);
        let mut add = |part: &[u8]| {
            digest.update(&part.len().to_be_bytes());
            digest.update(part);
        };
        let mut shows = false;
        for place in &self.key {
            let values = shown(std::slice::from_ref(place), request);
            shows |= !values.is_empty();
            add(&values.len().to_be_bytes());
            values.iter().for_each(|value| add(value));
        }
        let Request { head, bytes, client, .. } = *request;
        let mut added = BytesMut::new();
        edits.write(&mut added);
        add(&added);
        add(client.chain.as_bytes());
        add(client.certificate);
        if !self.anywhere {
            let host = || head.authority.map(|authority| authority.of(bytes));
            add(head.method_name.of(bytes));
            add(client.host.or_else(host).unwrap_or_default());
            add(client.scheme.as_bytes());
            add(head.target.path(bytes));
            add(edits.query().unwrap_or_else(|| head.target.query.of(bytes)));
        }
        let digest = digest.finish();
        shows.then(|| digest.as_ref().try_into().ok()).flatten()
    }
}

/// The last answers that let somebody in, each at a place that nobody outside can compute.
#[derive(Default)]
pub struct Known {
    hashes: RandomState,
    places: Vec<Option<(Key, Instant, Rc<Passed>)>>,
}

/// Who asks for what: a digest, as secrets need not be kept.
pub type Key = [u8; 32];

impl Known {
    fn place(&self, key: &Key, entries: usize) -> usize {
        self.hashes.hash_one(key) as usize % entries.max(1)
    }

    pub fn find(&self, key: &Key, entries: usize, now: Instant) -> Option<Rc<Passed>> {
        let (own, until, passed) = self.places.get(self.place(key, entries))?.as_ref()?;
        (own == key && now < *until).then(|| Rc::clone(passed))
    }

    pub fn add(&mut self, key: Key, entries: usize, until: Instant, passed: Rc<Passed>) {
        self.places.resize_with(entries, || None);
        let place = self.place(&key, entries);
        if let Some(place) = self.places.get_mut(place) {
            *place = Some((key, until, passed));
        }
    }
}
