//! Tells browsers to be careful with what comes from here: fields that harm no site that was not relying
//! on their absence, each of which can be another or none.

use bytes::Bytes;

use super::{Policy, Verdict};
use crate::document::section::Section;
use crate::document::value::Kind;
use crate::document::values::text;
use crate::exchange::{Context, Request};
use crate::http::headers::is_value_byte;

/// The key of each, its field, and what that says unless it is told otherwise.
const FIELDS: [(&str, &str, &str); 6] = [
    // WHATWG Fetch §3.6: nothing is taken for a script or a style that is not called one.
    ("content_type_options", "x-content-type-options", "nosniff"),
    // HTML §7.5: other sites learn that a user came from here, and not from which page.
    ("referrer_policy", "referrer-policy", "strict-origin-when-cross-origin"),
    // RFC 7034, for browsers older than CSP's frame-ancestors.
    ("frame_options", "x-frame-options", "SAMEORIGIN"),
    // CSP 3 §6.4.2: only pages of the same origin may frame these.
    ("content_security_policy", "content-security-policy", "frame-ancestors 'self'"),
    // HTML §7.1.3: windows of other origins that open these have no hold on them.
    ("cross_origin_opener_policy", "cross-origin-opener-policy", "same-origin-allow-popups"),
    // Permissions Policy: these may not ask for the devices of a user.
    ("permissions_policy", "permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    fields: Vec<(Bytes, Bytes)>,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let fields = FIELDS.into_iter().filter_map(|(key, name, default)| {
            let value = table.value(key, default.to_owned(), value);
            let value = Bytes::from(value);
            (value != "off").then(|| (Bytes::from_static(name.as_bytes()), value))
        });
        Self { fields: fields.collect() }
    }
}

fn value(kind: &Kind) -> Result<String, String> {
    match text(kind)? {
        text if !text.is_empty() && text.bytes().all(is_value_byte) => Ok(text.to_owned()),
        _ => Err("must be what the field is to say, or \"off\"".to_owned()),
    }
}

impl Policy for Settings {
    fn request(&self, _: &Request<'_>, context: &Context) -> Verdict {
        let mut edits = context.response_edits.borrow_mut();
        for (name, value) in &self.fields {
            edits.set(name.clone(), value.clone());
        }
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asker, settings};
    use super::*;

    #[test]
    fn each_can_be_another_or_none() {
        let said = |lines: &str| {
            let settings = settings(lines, Settings::read).unwrap();
            Asker::get("/").of(&settings).response
        };
        assert_eq!(said("").lines().count(), FIELDS.len());
        let own = said("frame_options = 'DENY'\nreferrer_policy = 'off'");
        assert!(own.contains("x-frame-options: DENY\n") && !own.contains("referrer"), "{own}");
        assert!(settings("frame_options = ''", Settings::read).is_err());
    }
}
