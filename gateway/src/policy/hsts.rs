//! Tells browsers to come back by HTTPS only (RFC 6797).

use std::time::Duration;

use bytes::Bytes;

use super::{Policy, Verdict};
use crate::document::section::Section;
use crate::document::units::duration;
use crate::document::values::boolean;
use crate::exchange::{Context, Request};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    value: Bytes,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        // Zero makes browsers forget.
        let max_age = table.value("max_age", YEAR, duration(Duration::ZERO..=10 * YEAR));
        let subdomains = table.value("include_subdomains", false, boolean);
        let preload = table.value("preload", false, boolean);
        if preload && (!subdomains || max_age < YEAR) {
            let message = "is taken only with include_subdomains = true and a max_age of 365d";
            table.reject_value("preload", message);
        }
        let mut value = format!("max-age={}", max_age.as_secs());
        value += if subdomains { "; includeSubDomains" } else { "" };
        value += if preload { "; preload" } else { "" };
        Self { value: value.into() }
    }
}

impl Policy for Settings {
    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let name = Bytes::from_static(b"strict-transport-security");
        let mut edits = context.response_edits.borrow_mut();
        match request.client.scheme {
            "https" => edits.set(name, self.value.clone()),
            // RFC 6797 §7.2: never over plain HTTP, also if the origin says it.
            _ => edits.remove(name),
        }
        Verdict::Continue
    }
}
