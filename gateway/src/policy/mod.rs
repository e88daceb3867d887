//! What listeners and routes ask of requests beyond where they go, and add to their answers. A policy is
//! a file here and a line in `policies!`; ARCHITECTURE.md walks through one.

mod client_certificate;
mod hsts;

use std::rc::Rc;

use crate::document::section::Section;
use crate::exchange::{Context, Error, Request};

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The next one is asked.
    Continue,
    /// It is answered with this status, and with the fields the policy has added.
    Answer(u16),
    /// It is refused.
    Refuse(Error),
}

/// Looks at requests. Waits for nothing and does no I/O; what it changes about the request on its way to
/// the origin, and about the answer, it says in [`Context`].
pub trait Policy {
    /// Looks at one whose head has come.
    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict;
}

/// The policies of a listener or a route, in the order they are asked.
#[derive(Clone, Default)]
pub struct Policies(Rc<[Rc<dyn Policy>]>);

impl Policies {
    /// Those of the settings.
    pub fn new<'a>(settings: impl Iterator<Item = &'a Settings>) -> Self {
        Self(settings.map(Settings::build).collect())
    }

    /// What they say of a request; the first that does not let it pass has the last word.
    pub fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let mut verdicts = self.0.iter().map(|policy| policy.request(request, context));
        verdicts.find(|verdict| *verdict != Verdict::Continue).unwrap_or(Verdict::Continue)
    }
}

/// Declares the policies there are, by the word that stands for each in a configuration.
macro_rules! policies {
    ($($kind:literal => $module:ident,)*) => {
        /// The settings of one policy.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(non_camel_case_types, reason = "each is named after its module")]
        pub enum Settings {
            $(
                #[doc = concat!("`kind = \"", $kind, "\"`")]
                $module($module::Settings),
            )*
        }

        /// The words that stand for them.
        pub const KINDS: &[&str] = &[$($kind),*];

        impl Settings {
            /// Reads the table of one of [`KINDS`]; `None` if that is none.
            pub(crate) fn read(kind: &str, table: &mut Section<'_>) -> Option<Self> {
                match kind {
                    $($kind => Some(Self::$module($module::Settings::read(table))),)*
                    _ => None,
                }
            }

            /// The word that stands for it.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$module(_) => $kind,)*
                }
            }

            fn build(&self) -> Rc<dyn Policy> {
                match self {
                    $(Self::$module(settings) => Rc::new($module::Settings::clone(settings)),)*
                }
            }
        }
    };
}

policies! {
    "client_certificate" => client_certificate,
    "hsts" => hsts,
}
