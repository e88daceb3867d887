//! Lets in who has shown a certificate, on listeners that do not ask everybody for one.

use super::{Policy, Verdict};
use crate::document::section::Section;
use crate::document::values::text;
use crate::exchange::error::Denial;
use crate::exchange::{Context, Error, Request};

const ALLOW_HINT: &str = "write [\"CN=orders,O=Example\"] or [\"URI:spiffe://example/orders\"]";

/// Whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Subjects and names; `None` for those of everybody.
    allow: Option<Vec<String>>,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let read = |table: &mut Section<'_>| {
            table.list("allow", ALLOW_HINT, |kind| text(kind).map(str::to_owned))
        };
        Self { allow: table.has("allow").then(|| read(table)) }
    }
}

impl Policy for Settings {
    fn rule(&self, _: &Request<'_>) -> String {
        match &self.allow {
            None => "anybody's certificate".to_owned(),
            Some(allow) => format!("the certificate of {}", allow.join(" or ")),
        }
    }

    fn request(&self, request: &Request<'_>, _: &Context) -> Verdict {
        let Some(certificate) = request.certificate else {
            return Verdict::Refuse(Error::Denied(Denial::NoCertificate));
        };
        let is = |allowed: &String| {
            *allowed == certificate.subject || certificate.names.contains(allowed)
        };
        match self.allow.as_ref().is_none_or(|allow| allow.iter().any(is)) {
            true => Verdict::Continue,
            false => Verdict::Refuse(Error::Denied(Denial::OtherCertificate)),
        }
    }
}
