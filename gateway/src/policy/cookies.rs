//! Makes the cookies that origins set safer: attributes are added to those that lack them.

use bytes::Bytes;

use super::{Policy, Verdict};
use crate::document::section::Section;
use crate::document::values::{boolean, word};
use crate::exchange::{Context, Request};
use crate::http::edits::CookieFlags;

const SAME_SITE: [(&str, Option<Bytes>); 4] = [
    ("strict", Some(Bytes::from_static(b"; SameSite=Strict"))),
    ("lax", Some(Bytes::from_static(b"; SameSite=Lax"))),
    ("none", Some(Bytes::from_static(b"; SameSite=None"))),
    ("off", None),
];

/// What is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    flags: CookieFlags,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let lax = Some(Bytes::from_static(b"; SameSite=Lax"));
        let flags = CookieFlags {
            secure: table.value("secure", true, boolean),
            http_only: table.value("http_only", true, boolean),
            same_site: table.value("same_site", lax, word(&SAME_SITE)),
        };
        let none = flags.same_site.as_ref().is_some_and(|text| text.ends_with(b"None"));
        if none && !flags.secure {
            table.reject_value("same_site", "browsers take \"none\" only with secure = true");
        }
        Self { flags }
    }
}

impl Policy for Settings {
    fn rule(&self, request: &Request<'_>) -> String {
        let CookieFlags { secure, http_only, same_site } = &self.flags;
        let secure = match (secure, request.client.scheme) {
            (false, _) => "",
            (true, "https") => "; Secure",
            (true, _) => "; Secure over HTTPS only",
        };
        let http_only = if *http_only { "; HttpOnly" } else { "" };
        let same_site = String::from_utf8_lossy(same_site.as_deref().unwrap_or_default());
        let flags = format!("{same_site}{http_only}{secure}");
        format!("cookies of answers get {}", flags.trim_start_matches("; "))
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        // Over plain HTTP a browser would throw a Secure cookie away.
        let secure = self.flags.secure && request.client.scheme == "https";
        let flags = CookieFlags { secure, ..self.flags.clone() };
        context.response_edits.borrow_mut().flag_cookies(flags);
        Verdict::Continue
    }
}
