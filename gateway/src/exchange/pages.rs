//! What the gateway's own answers say: their status, in the form the client prefers, or what a file
//! says instead.

use std::borrow::Cow;

use crate::http::encode::reason;

/// A page from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Which answers have it.
    pub status: u16,
    /// What it is.
    pub form: Form,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// HTML.
    Html,
    /// JSON, for clients that prefer it.
    Json,
    /// Plain text.
    Text,
}

impl Form {
    /// That of a file with this extension.
    pub fn of(extension: &str) -> Option<Self> {
        match extension {
            "html" => Some(Self::Html),
            "json" => Some(Self::Json),
            "txt" => Some(Self::Text),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

/// The pages that take the place of the gateway's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages(pub Vec<Page>);

/// Statuses a page can be for: those the gateway answers with by itself.
pub const STATUSES: [u16; 17] =
    [400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 429, 431, 501, 502, 503, 504, 505];

impl Pages {
    /// Content-Type and body of an answer.
    pub fn body(&self, status: u16, json: bool, id: &[u8]) -> (&'static str, Cow<'_, [u8]>) {
        let fits = |page: &&Page| page.status == status && (page.form == Form::Json) == json;
        if let Some(page) = self.0.iter().find(fits) {
            return (page.form.content_type(), Cow::Borrowed(&page.body));
        }
        let reason = reason(status);
        if !json {
            let text = format!("{status} {reason}\n");
            return (Form::Text.content_type(), Cow::Owned(text.into_bytes()));
        }
        // RFC 9457. Of the request nothing is repeated but its id, none of whose characters needs
        // an escape.
        let id = String::from_utf8_lossy(id);
        let text =
            format!("{{\"title\":\"{reason}\",\"status\":{status},\"request_id\":\"{id}\"}}\n");
        ("application/problem+json", Cow::Owned(text.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_for_its_status_and_its_form() {
        let page = Page { status: 503, form: Form::Html, body: b"<p>Back soon".to_vec() };
        let pages = Pages(vec![page]);
        let body = |status, json| {
            let (content_type, body) = pages.body(status, json, b"id-1");
            format!("{content_type}: {}", String::from_utf8_lossy(&body))
        };
        assert_eq!(body(503, false), "text/html; charset=utf-8: <p>Back soon");
        assert_eq!(body(404, false), "text/plain; charset=utf-8: 404 Not Found\n");
        assert_eq!(
            body(503, true),
            "application/problem+json: \
             {\"title\":\"Service Unavailable\",\"status\":503,\"request_id\":\"id-1\"}\n"
        );
    }
}
