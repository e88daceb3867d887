//! Paths: what a route may ask of them, and the routes of one host by path.

use std::fmt;
use std::str::FromStr;

use rustc_hash::FxHashMap;

use super::{Pattern, insert_length, key};

/// What a route asks of the request's path (without query).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path and no other.
    Exact(String),
    /// Every path that begins with this prefix, which ends in `/`, and the prefix without that
    /// `/`: `/api/*` is `/api/` and serves `/api`, `/api/` and `/api/users`, but not `/apis`.
    Prefix(String),
    /// Every path that matches.
    Pattern(Pattern),
}

/// As a configuration has it.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Pattern(pattern) => write!(f, "~{}", pattern.as_str()),
        }
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(pattern) = text.strip_prefix('~') {
            return pattern.parse().map(Self::Pattern);
        }
        let body = text.strip_suffix('*').filter(|body| body.ends_with('/')).unwrap_or(text);
        let complaint = if !text.starts_with('/') {
            "a path begins with \"/\""
        } else if body.contains('*') {
            "a \"*\" may only be the last segment, as in \"/api/*\""
        } else if body.contains('?') || body.contains('#') {
            "a path has no query and no fragment"
        } else if body.split('/').any(|segment| segment == "." || segment == "..") {
            "a path has no \".\" or \"..\" segments"
        } else if !body.bytes().all(|byte| byte.is_ascii_graphic()) {
            "write spaces, controls and what is not ASCII percent-encoded, as clients send them"
        } else if body.len() < text.len() {
            return Ok(Self::Prefix(body.to_owned()));
        } else {
            return Ok(Self::Exact(text.to_owned()));
        };
        Err(format!("{text:?}: {complaint}"))
    }
}

impl PathPattern {
    /// The expression, if it is one.
    pub fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::Pattern(pattern) => Some(pattern),
            Self::Exact(_) | Self::Prefix(_) => None,
        }
    }
}

/// The routes of one host.
#[derive(Clone, Debug)]
pub(super) struct Paths<T> {
    exact: FxHashMap<Box<[u8]>, Vec<T>>,
    patterns: Vec<(Pattern, T)>,
    /// By prefix without its final `/`, so that `/api/*` is found for `/api`, too.
    prefixes: FxHashMap<Box<[u8]>, Vec<T>>,
    /// Distinct lengths of the prefixes, longest first. A path is probed at these only, so a
    /// request with thousands of slashes costs no more than one with as many as the routes have.
    prefix_lengths: Vec<usize>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self {
            exact: FxHashMap::default(),
            patterns: Vec::new(),
            prefixes: FxHashMap::default(),
            prefix_lengths: Vec::new(),
        }
    }
}

impl<T> Paths<T> {
    pub(super) fn insert(&mut self, path: PathPattern, target: T) {
        match path {
            PathPattern::Exact(path) => self.exact.entry(key(path)).or_default().push(target),
            PathPattern::Pattern(pattern) => self.patterns.push((pattern, target)),
            PathPattern::Prefix(mut prefix) => {
                prefix.truncate(prefix.len().saturating_sub(1));
                insert_length(&mut self.prefix_lengths, prefix.len());
                self.prefixes.entry(key(prefix)).or_default().push(target);
            }
        }
    }

    /// The first that `fits`.
    pub(super) fn lookup<'t>(
        &'t self,
        path: &[u8],
        fits: &mut impl FnMut(&'t T) -> bool,
    ) -> Option<&'t T> {
        let exact = self.exact.get(path).and_then(|targets| targets.iter().find(|t| fits(t)));
        if exact.is_some() {
            return exact;
        }
        for (pattern, target) in &self.patterns {
            if pattern.matches(path) && fits(target) {
                return Some(target);
            }
        }
        self.prefix_lengths.iter().find_map(|&length| {
            let (prefix, rest) = path.split_at_checked(length)?;
            let at_boundary = rest.is_empty() || rest.starts_with(b"/");
            let targets = at_boundary.then(|| self.prefixes.get(prefix)).flatten()?;
            targets.iter().find(|target| fits(target))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths() {
        let exact = |path: &str| Ok(PathPattern::Exact(path.to_owned()));
        let prefix = |path: &str| Ok(PathPattern::Prefix(path.to_owned()));
        assert_eq!("/".parse(), exact("/"));
        assert_eq!("/a/b".parse(), exact("/a/b"));
        assert_eq!("/a/".parse(), exact("/a/"));
        assert_eq!("/a%20b/..c".parse(), exact("/a%20b/..c"));
        assert_eq!("/*".parse(), prefix("/"));
        assert_eq!("/a/*".parse(), prefix("/a/"));
    }

    #[test]
    fn refuses_what_no_request_should_match() {
        for wrong in [
            "", "*", "a", "api/*", "/a*", "/*/a", "/**", "/a/**", "/a/*/", "/a?b", "/a#b", "/a b",
            "/a/../b", "/..", "/./a", "/a\n", "/ü", "/a/\0/*",
        ] {
            assert!(wrong.parse::<PathPattern>().is_err(), "{wrong:?}");
        }
    }
}
