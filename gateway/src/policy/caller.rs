//! Who a policy has found a client to be, and what is asked of a client that is nobody yet.

use bytes::Bytes;

use super::{Verdict, headers};
use crate::document::section::Section;
use crate::document::value::Kind;
use crate::document::values::{boolean, text};
use crate::exchange::error::Denial;
use crate::exchange::{Context, Error, Request};

/// Bytes of a name: it stands in log lines and fields.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// What policies that find out who somebody is have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The field the origin is told the name in.
    identity_field: Option<Bytes>,
    /// Whether the origin sees what the client has shown.
    pub pass: bool,
    /// The challenges of a 401 (RFC 9110 §11.6.1).
    challenges: Vec<Bytes>,
}

impl Caller {
    /// Reads what belongs to it. `challenges` are made of the realm.
    pub fn read(table: &mut Section<'_>, challenges: impl FnOnce(&str) -> Vec<String>) -> Self {
        let realm = table.value("realm", "gateway".to_owned(), realm);
        Self {
            identity_field: table
                .optional("identity_field", |kind| headers::name(text(kind)?, true)),
            pass: table.value("pass", false, boolean),
            challenges: challenges(&realm).into_iter().map(Bytes::from).collect(),
        }
    }

    /// Nobody else may say who the client is.
    pub fn strip(&self, context: &Context) {
        if let Some(field) = &self.identity_field {
            context.request_edits.borrow_mut().remove(field.clone());
        }
    }

    /// It is `name`.
    pub fn known(&self, name: &str, request: &Request<'_>, context: &Context) -> Verdict {
        request.identity.set(name);
        if let Some(field) = &self.identity_field {
            let name = Bytes::copy_from_slice(name.as_bytes());
            context.request_edits.borrow_mut().set(field.clone(), name);
        }
        Verdict::Continue
    }

    /// It is nobody.
    pub fn unknown(&self, denial: Denial, context: &Context) -> Verdict {
        self.unknown_because(denial, "", context)
    }

    /// It is nobody, or nobody who may do this; `more` stands behind each challenge.
    pub fn unknown_because(&self, denial: Denial, more: &str, context: &Context) -> Verdict {
        let name = Bytes::from_static(b"www-authenticate");
        let mut edits = context.response_edits.borrow_mut();
        edits.remove(name.clone());
        for challenge in &self.challenges {
            let challenge = match more {
                "" => challenge.clone(),
                more => [challenge, more.as_bytes()].concat().into(),
            };
            edits.add(name.clone(), challenge);
        }
        Verdict::Refuse(Error::Denied(denial))
    }
}

/// What stands between quotes in a challenge.
fn realm(kind: &Kind) -> Result<String, String> {
    let text = text(kind)?;
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("must be plain ASCII without quotes and backslashes".to_owned()),
    }
}

/// A client's name as a configuration or a file writes it.
pub(super) fn name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    match (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, no spaces and no colons")),
    }
}
