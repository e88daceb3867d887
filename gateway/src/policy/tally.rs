//! How often each name that is configured has been let in. Names that others choose, as tokens do, are not
//! counted: labels of metrics must be bounded.

#![expect(clippy::disallowed_types, reason = "control reads what workers count")]

use std::collections::HashMap;
use std::sync::Arc;

use super::Parts;
use crate::telemetry::metrics::Counter;

/// The counters of one policy's names; none where nobody has asked for them.
#[derive(Default)]
pub(super) struct Tally(HashMap<String, Arc<Counter>>);

impl Tally {
    /// Those of these names, which go on where they were.
    pub fn new<'a>(parts: &Parts<'_>, names: impl Iterator<Item = &'a String>) -> Self {
        Self(parts.metrics.identities(parts.name, names))
    }

    /// One more request of `name`.
    pub fn count(&self, name: &str) {
        if let Some(counter) = self.0.get(name) {
            counter.add(1);
        }
    }
}
