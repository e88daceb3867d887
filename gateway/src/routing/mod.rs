//! Which route a request takes: a pure look-up, no I/O, no clock.
//!
//! Routes of a higher priority come first. Among those of the same the most specific host decides: an
//! exact name, then wildcards from the longest suffix to the shortest, then routes for any host. Within
//! a host an exact path comes before regular expressions, in the order written, and those before
//! prefixes, the longest first; of several with the same path those with more conditions. What does not
//! fit hands over to the next: a path to the next less specific one, a host none of whose routes fit to
//! the next less specific host, so that a route for any host and `/healthz` serves every host that has
//! none itself.
//!
//! Paths are compared byte for byte, as they go on to the origin: nothing is decoded, no dot
//! segment removed and no case folded.

pub mod conditions;
mod host;
mod path;
mod pattern;

use std::cmp::Reverse;

pub use conditions::{Conditions, Facts, Unmet};
pub use host::{HostPattern, is_name};
pub use path::PathPattern;
pub use pattern::Pattern;

use path::Paths;
use rustc_hash::FxHashMap;

/// One route of a table.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// Before all of a lower one.
    pub priority: i32,
    /// Which hosts it serves.
    pub host: HostPattern,
    /// Which paths it serves.
    pub path: PathPattern,
    /// How many conditions it has: more come before fewer.
    pub conditions: usize,
    /// What the look-up finds.
    pub target: T,
}

/// Routes by priority, host and path. A look-up costs one hash per *length* a pattern has, not one per
/// route, and allocates nothing.
#[derive(Clone, Debug)]
pub struct Table<T> {
    /// Highest first.
    levels: Vec<(i32, Hosts<T>)>,
}

/// Routes of one priority. Clients look up in its maps and put nothing there, so that their hash need not resist them.
#[derive(Clone, Debug)]
struct Hosts<T> {
    exact: FxHashMap<Box<[u8]>, Paths<T>>,
    wildcards: FxHashMap<Box<[u8]>, Paths<T>>,
    /// Distinct lengths of the wildcards' suffixes, longest first.
    wildcard_lengths: Vec<usize>,
    any: Paths<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self {
            exact: FxHashMap::default(),
            wildcards: FxHashMap::default(),
            wildcard_lengths: Vec::new(),
            any: Paths::default(),
        }
    }
}

impl<T> Table<T> {
    /// Of two entries that differ in nothing the first is found; the configuration has none.
    pub fn new(entries: impl IntoIterator<Item = Entry<T>>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|entry| (Reverse(entry.priority), Reverse(entry.conditions)));
        let mut levels: Vec<(i32, Hosts<T>)> = Vec::new();
        for entry in entries {
            if levels.last().is_none_or(|(priority, _)| *priority != entry.priority) {
                levels.push((entry.priority, Hosts::default()));
            }
            if let Some((_, hosts)) = levels.last_mut() {
                hosts.insert(entry);
            }
        }
        Self { levels }
    }

    /// The target of the first route that `fits`. `host` comes without port, in any case; `path`
    /// without query.
    pub fn lookup<'t>(
        &'t self,
        host: Option<&[u8]>,
        path: &[u8],
        mut fits: impl FnMut(&'t T) -> bool,
    ) -> Option<&'t T> {
        let mut buffer = [0; host::NAME_BYTES_MAX];
        let host = host.and_then(|host| host::normal(host, &mut buffer));
        self.levels.iter().find_map(|(_, hosts)| hosts.lookup(host, path, &mut fits))
    }
}

impl<T> Hosts<T> {
    fn insert(&mut self, entry: Entry<T>) {
        let paths = match entry.host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(name) => self.exact.entry(key(name)).or_default(),
            HostPattern::Wildcard(suffix) => {
                insert_length(&mut self.wildcard_lengths, suffix.len());
                self.wildcards.entry(key(suffix)).or_default()
            }
        };
        paths.insert(entry.path, entry.target);
    }

    fn lookup<'t>(
        &'t self,
        host: Option<&[u8]>,
        path: &[u8],
        fits: &mut impl FnMut(&'t T) -> bool,
    ) -> Option<&'t T> {
        host.and_then(|host| self.lookup_named(host, path, fits))
            .or_else(|| self.any.lookup(path, fits))
    }

    fn lookup_named<'t>(
        &'t self,
        host: &[u8],
        path: &[u8],
        fits: &mut impl FnMut(&'t T) -> bool,
    ) -> Option<&'t T> {
        let exact = self.exact.get(host).and_then(|paths| paths.lookup(path, fits));
        exact.or_else(|| {
            self.wildcard_lengths.iter().find_map(|&length| {
                let suffix = host::proper_suffix(host, length)?;
                self.wildcards.get(suffix)?.lookup(path, fits)
            })
        })
    }
}

fn key(text: String) -> Box<[u8]> {
    text.into_bytes().into_boxed_slice()
}

/// Keeps `lengths` sorted, longest first, without doubles.
fn insert_length(lengths: &mut Vec<usize>, length: usize) {
    if let Err(place) = lengths.binary_search_by(|held| length.cmp(held)) {
        lengths.insert(place, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &'static str)]) -> Table<&'static str> {
        Table::new(routes.iter().map(|&(pattern, name)| {
            let (host, path) = pattern.split_at(pattern.find(['/', '~']).unwrap());
            let host = match host {
                "" => HostPattern::Any,
                host => host.parse().unwrap(),
            };
            entry(host, path.parse().unwrap(), name)
        }))
    }

    fn entry<T>(host: HostPattern, path: PathPattern, target: T) -> Entry<T> {
        Entry { priority: 0, host, path, conditions: 0, target }
    }

    #[track_caller]
    fn expect(table: &Table<&'static str>, host: &str, path: &str, name: Option<&str>) {
        let host = (!host.is_empty()).then_some(host.as_bytes());
        assert_eq!(table.lookup(host, path.as_bytes(), |_| true).copied(), name);
    }

    #[test]
    fn the_most_specific_host_wins() {
        let table = table(&[
            ("/*", "any"),
            ("*.example.com/*", "wildcard"),
            ("*.eu.example.com/*", "longer wildcard"),
            ("www.example.com/*", "exact"),
        ]);
        expect(&table, "www.example.com", "/", Some("exact"));
        expect(&table, "api.example.com", "/", Some("wildcard"));
        expect(&table, "a.b.example.com", "/", Some("wildcard"));
        expect(&table, "www.eu.example.com", "/", Some("longer wildcard"));
        expect(&table, "eu.example.com", "/", Some("wildcard"));
        expect(&table, "example.com", "/", Some("any"));
        expect(&table, ".example.com", "/", Some("any"));
        expect(&table, "badexample.com", "/", Some("any"));
        expect(&table, "", "/", Some("any"));
    }

    #[test]
    fn hosts_compare_without_case_and_without_the_root_dot() {
        let table = table(&[("Example.COM/*", "exact"), ("*.Example.com/*", "wildcard")]);
        expect(&table, "example.com", "/", Some("exact"));
        expect(&table, "EXAMPLE.com", "/", Some("exact"));
        expect(&table, "example.com.", "/", Some("exact"));
        expect(&table, "API.example.com.", "/", Some("wildcard"));
        expect(&table, "example.com..", "/", None);
        expect(&table, ".", "/", None);
    }

    #[test]
    fn a_host_longer_than_any_name_is_no_name() {
        let table = table(&[("*.example.com/*", "wildcard"), ("/*", "any")]);
        let long = format!("{}.example.com", "a".repeat(300));
        expect(&table, &long, "/", Some("any"));
        expect(&table, &long.to_uppercase(), "/", Some("any"));
    }

    #[test]
    fn an_exact_path_beats_the_longest_prefix() {
        let table = table(&[
            ("/*", "root"),
            ("/api/*", "api"),
            ("/api/v2/*", "v2"),
            ("/api/v2/health", "health"),
            ("/api", "exact"),
        ]);
        expect(&table, "", "/", Some("root"));
        expect(&table, "", "/apis", Some("root"));
        expect(&table, "", "/api", Some("exact"));
        expect(&table, "", "/api/", Some("api"));
        expect(&table, "", "/api/v1/x", Some("api"));
        expect(&table, "", "/api/v2", Some("v2"));
        expect(&table, "", "/api/v2/health", Some("health"));
        expect(&table, "", "/api/v2/health/", Some("v2"));
        expect(&table, "", "/API/v2", Some("root"));
    }

    #[test]
    fn a_prefix_serves_its_own_name_and_all_below() {
        let table = table(&[("/api/*", "api")]);
        expect(&table, "", "/api", Some("api"));
        expect(&table, "", "/api/", Some("api"));
        expect(&table, "", "/api//x", Some("api"));
        expect(&table, "", "/apix", None);
        expect(&table, "", "/", None);
        expect(&table, "", "*", None);
    }

    #[test]
    fn a_host_without_the_path_hands_over() {
        let table = table(&[
            ("/*", "any"),
            ("*.example.com/w/*", "wildcard"),
            ("*.eu.example.com/e/*", "longer wildcard"),
            ("www.eu.example.com/x", "exact"),
        ]);
        expect(&table, "www.eu.example.com", "/x", Some("exact"));
        expect(&table, "www.eu.example.com", "/e/1", Some("longer wildcard"));
        expect(&table, "www.eu.example.com", "/w/1", Some("wildcard"));
        expect(&table, "www.eu.example.com", "/", Some("any"));
    }

    #[test]
    fn an_expression_comes_between_an_exact_path_and_a_prefix() {
        let table = table(&[
            ("/a/*", "prefix"),
            ("~/a/[0-9]+", "digits"),
            ("~/a/.*", "all"),
            ("/a/1", "exact"),
        ]);
        expect(&table, "", "/a/1", Some("exact"));
        expect(&table, "", "/a/2", Some("digits"));
        expect(&table, "", "/a/2x", Some("all"));
        expect(&table, "", "/a", Some("prefix"));
    }

    #[test]
    fn what_does_not_fit_hands_over() {
        let with = |priority, host: &str, path: &str, conditions, name| Entry {
            priority,
            host: if host.is_empty() { HostPattern::Any } else { host.parse().unwrap() },
            path: path.parse().unwrap(),
            conditions,
            target: name,
        };
        let table = Table::new([
            with(0, "a.example", "/x", 0, "plain"),
            with(0, "a.example", "/x", 2, "two"),
            with(0, "a.example", "/x", 1, "one"),
            with(0, "*.example", "/x", 0, "wildcard"),
            with(0, "", "/*", 0, "any"),
            with(1, "", "~/x.*", 0, "urgent"),
            with(-1, "a.example", "/x", 3, "last"),
        ]);
        let order = ["urgent", "two", "one", "plain", "wildcard", "any", "last"];
        let mut asked = Vec::new();
        let found = table.lookup(Some(b"a.example"), b"/x", |name| {
            asked.push(*name);
            false
        });
        assert_eq!((found, &asked[..]), (None, &order[..]));
        for (position, name) in order.iter().enumerate() {
            let mut left = position;
            let found = table.lookup(Some(b"a.example"), b"/x", |_| {
                let fits = left == 0;
                left = left.saturating_sub(1);
                fits
            });
            assert_eq!(found, Some(name));
        }
    }

    #[test]
    fn the_first_of_two_equals_stays() {
        expect(&table(&[("/a", "first"), ("/a", "second")]), "", "/a", Some("first"));
    }

    /// Random routes and requests out of a small alphabet, so that they meet: the table must
    /// answer what trying every route and ranking the matches would.
    #[test]
    fn agrees_with_the_obvious_way() {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for _ in 0..2_000 {
            let routes: Vec<_> = (0..8u32)
                .map(|number| (random.host_pattern(), random.path_pattern(), number))
                .collect();
            let table = Table::new(
                routes.iter().cloned().map(|(host, path, number)| entry(host, path, number)),
            );
            for _ in 0..20 {
                let (host, path) = (random.labels('.'), format!("/{}", random.labels('/')));
                assert_eq!(
                    table.lookup(Some(host.as_bytes()), path.as_bytes(), |_| true).copied(),
                    obvious(&routes, &host, &path),
                    "{host} {path} in {routes:?}"
                );
            }
        }
    }

    fn obvious(routes: &[(HostPattern, PathPattern, u32)], host: &str, path: &str) -> Option<u32> {
        let rank = |(host_pattern, path_pattern, number): &(HostPattern, PathPattern, u32)| {
            let host_rank = match host_pattern {
                HostPattern::Any => Some(0),
                HostPattern::Exact(name) => (host == name).then_some(usize::MAX),
                HostPattern::Wildcard(suffix) => {
                    (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len())
                }
            };
            let path_rank = match path_pattern {
                PathPattern::Exact(exact) => (path == exact).then_some(usize::MAX),
                PathPattern::Pattern(pattern) => {
                    pattern.matches(path.as_bytes()).then_some(usize::MAX - 1)
                }
                PathPattern::Prefix(prefix) => {
                    format!("{path}/").starts_with(prefix.as_str()).then_some(prefix.len())
                }
            };
            Some((host_rank?, path_rank?, std::cmp::Reverse(*number)))
        };
        routes.iter().filter_map(rank).max().map(|(_, _, number)| number.0)
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }

        fn labels(&mut self, separator: char) -> String {
            let labels: Vec<_> =
                (0..=self.below(4)).map(|_| ["a", "b", "ab"][self.below(3) as usize]).collect();
            labels.join(&separator.to_string())
        }

        fn host_pattern(&mut self) -> HostPattern {
            match self.below(3) {
                0 => HostPattern::Any,
                1 => HostPattern::Exact(self.labels('.')),
                _ => HostPattern::Wildcard(format!(".{}", self.labels('.'))),
            }
        }

        fn path_pattern(&mut self) -> PathPattern {
            match self.below(4) {
                0 => PathPattern::Prefix("/".to_owned()),
                3 => format!("~/{}(/.*)?", self.labels('/')).parse().unwrap(),
                1 => PathPattern::Exact(format!("/{}", self.labels('/'))),
                _ => PathPattern::Prefix(format!("/{}/", self.labels('/'))),
            }
        }
    }
}
