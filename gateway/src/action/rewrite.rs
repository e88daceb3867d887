//! What a request is called on its way to the origin.

use crate::exchange::template::{Escape, Template};
use crate::exchange::{Context, Request};
use crate::routing::PathPattern;

/// What of a request's target is changed. The query stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Taken off the path, where it begins with these segments.
    pub strip_prefix: Option<String>,
    /// Put in front of the path, after that.
    pub add_prefix: Option<String>,
    /// Takes the place of the path.
    pub path: Option<Template>,
    /// Takes the place of the host asked for.
    pub host: Option<Template>,
}

/// What a request is called instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Its path.
    pub path: Option<Vec<u8>>,
    /// Its host.
    pub host: Option<Vec<u8>>,
}

impl Rewrite {
    /// The texts in it that a request has a part in.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        self.path.iter().chain(&self.host)
    }

    /// The new names of a request that a route for `path` serves.
    pub fn apply(&self, request: &Request<'_>, context: &Context, path: &PathPattern) -> Rewritten {
        let render =
            |template: &Template| template.render(request, context, path.pattern(), Escape::Path);
        let prefixes = (self.strip_prefix.as_deref(), self.add_prefix.as_deref());
        let new_path = match (&self.path, prefixes) {
            (Some(path), _) => Some(render(path)),
            (None, (None, None)) => None,
            (None, (strip, add)) => {
                let path = request.head.target.path(request.bytes);
                Some(with_prefixes(path, strip.unwrap_or_default(), add.unwrap_or_default()))
            }
        };
        Rewritten { path: new_path, host: self.host.as_ref().map(render) }
    }
}

fn with_prefixes(path: &[u8], strip: &str, add: &str) -> Vec<u8> {
    let rest = path
        .strip_prefix(strip.as_bytes())
        .filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
        .unwrap_or(path);
    match (add, rest) {
        ("", b"") => b"/".to_vec(),
        (add, rest) => [add.as_bytes(), rest].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_whole_segments() {
        let rewritten = |path: &str, strip, add| {
            String::from_utf8(with_prefixes(path.as_bytes(), strip, add)).unwrap()
        };
        assert_eq!(rewritten("/v2/orders", "/v2", ""), "/orders");
        assert_eq!(rewritten("/v2", "/v2", ""), "/");
        assert_eq!(rewritten("/v2/", "/v2", ""), "/");
        assert_eq!(rewritten("/v20", "/v2", ""), "/v20");
        assert_eq!(rewritten("/v2/orders", "/v2", "/api"), "/api/orders");
        assert_eq!(rewritten("/v2", "/v2", "/api"), "/api");
        assert_eq!(rewritten("/orders", "", "/api"), "/api/orders");
    }
}
