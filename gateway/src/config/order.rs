//! Policies in an order that does not do what somebody may have meant by it.

use std::collections::BTreeSet;

use super::Config;
use crate::policy::Settings;

impl Config {
    /// Limits by what nobody knows yet, and preflights that do not come to their policy. Each policy is
    /// named once, however many lists have it.
    pub(super) fn misplaced(&self, warnings: &mut Vec<String>) {
        let mut told = BTreeSet::new();
        let of_listeners: Vec<usize> =
            self.listeners.iter().flat_map(|listener| listener.policies.iter().copied()).collect();
        let listeners = self.listeners.iter().enumerate().map(|(at, listener)| {
            (format!("listeners[{at}].policies"), &listener.policies, &[][..])
        });
        let routes = self.routes.iter().enumerate().map(|(at, route)| {
            (format!("routes[{at}].policies"), &route.policies, &of_listeners[..])
        });
        for (place, own, before) in listeners.chain(routes) {
            for (position, at) in own.iter().enumerate() {
                let (sooner, later) = own.split_at(position);
                let sooner: Vec<usize> = before.iter().chain(sooner).copied().collect();
                let Some(wrong) = self.wrong_at(*at, &sooner, later) else { continue };
                if told.insert(*at) {
                    warnings.push(format!("{place}: {wrong}"));
                }
            }
        }
    }

    /// What is wrong about a policy that comes after some and before others.
    fn wrong_at(&self, at: usize, sooner: &[usize], later: &[usize]) -> Option<String> {
        let policy = self.policies.get(at)?;
        let name = &policy.name;
        if policy.settings.kind() == "cors" {
            let first = sooner.iter().find(|at| self.authenticates(**at))?;
            let first = &self.policies.get(*first)?.name;
            return Some(format!(
                "{first} refuses preflights, which never say who asks: write {name} before it"
            ));
        }
        let key = policy.settings.key()?;
        let hidden = sooner.iter().find_map(|at| match self.policies.get(*at) {
            Some(before) => match &before.settings {
                Settings::api_key(keys) => {
                    key.fields().find(|field| keys.hides(field)).map(|field| (&before.name, field))
                }
                _ => None,
            },
            None => None,
        });
        if let Some((before, field)) = hidden {
            return Some(format!(
                "{before} takes {field} away before {name} counts by it: write key = \"identity\""
            ));
        }
        if key.has_claim() && !sooner.iter().any(|at| self.has_kind(*at, "jwt")) {
            return Some(format!("{name} counts by a claim: write a jwt policy before it"));
        }
        if !key.has_identity() || sooner.iter().any(|at| self.authenticates(*at)) {
            return None;
        }
        match later.iter().find(|at| self.authenticates(**at)) {
            Some(later) => {
                let later = &self.policies.get(*later)?.name;
                Some(format!(
                    "{name} counts by identity, which only {later} finds: write it behind"
                ))
            }
            None if self.asks_for_certificates() => None,
            None => Some(format!(
                "{name} counts by identity, which nothing before it finds: all clients are one"
            )),
        }
    }

    fn authenticates(&self, at: usize) -> bool {
        let policy = self.policies.get(at).map(|policy| &policy.settings);
        policy.is_some_and(|settings| settings.authenticates() || !settings.members().is_empty())
    }

    /// Whether it is of a kind, or may be.
    fn has_kind(&self, at: usize, kind: &str) -> bool {
        self.policies.get(at).is_some_and(|policy| {
            let members = policy.settings.members().iter();
            let mut members =
                members.filter_map(|name| self.policies.iter().find(|member| member.name == *name));
            policy.settings.kind() == kind || members.any(|member| member.settings.kind() == kind)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    fn warnings(listener: &str, route: &str, limit: &str) -> Vec<String> {
        let [listener, route] =
            [listener, route].map(|list| if list.is_empty() { "'hsts'" } else { list });
        let digest = "00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984";
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/examples/keys.json");
        let text = format!(
            "listeners = [{{ address = '127.0.0.1:1', policies = [{listener}] }}]
            policies.keys = {{ kind = 'api_key', keys = {{ alice = '{digest}' }} }}
            policies.users = {{ kind = 'jwt', algorithms = ['ES256'], jwks_file = {file:?}, \
                issuer = 'a', audience = 'b' }}
            policies.either = {{ kind = 'any', of = ['keys', 'users'] }}
            policies.pages = {{ kind = 'cors', origins = ['*'] }}
            policies.limit = {{ kind = 'rate_limit', limits = ['1/s'], {limit} }}
            [[routes]]
            policies = [{route}]
            respond = {{}}"
        );
        let config =
            super::super::check::check(text.as_bytes(), &Default::default(), &[0]).unwrap();
        let warnings = config.warnings(UNIX_EPOCH);
        warnings.into_iter().filter(|warning| !warning.contains("no listener or route")).collect()
    }

    #[test]
    fn limits_come_after_who_finds_out() {
        let identity = "key = ['client', 'identity']";
        assert_eq!(
            warnings("'limit', 'keys'", "", identity),
            [
                "listeners[0].policies: limit counts by identity, which only keys finds: write it behind"
            ]
        );
        assert_eq!(
            warnings("'limit'", "'keys'", identity),
            [
                "listeners[0].policies: limit counts by identity, which nothing before it finds: all \
              clients are one"
            ]
        );
        for (listener, route) in [("'keys', 'limit'", ""), ("'either'", "'limit'"), ("'limit'", "")]
        {
            let key =
                if route.is_empty() && listener == "'limit'" { "key = 'all'" } else { identity };
            assert!(warnings(listener, route, key).is_empty(), "{listener} {route}");
        }
        let claim = "key = 'claim:tenant'";
        assert_eq!(
            warnings("'keys', 'limit'", "", claim),
            ["listeners[0].policies: limit counts by a claim: write a jwt policy before it"]
        );
        assert!(warnings("'either', 'limit'", "", claim).is_empty());
        assert_eq!(
            warnings("'keys'", "'limit'", "key = 'header:X-Api-Key'"),
            [
                "routes[0].policies: keys takes x-api-key away before limit counts by it: write key = \
              \"identity\""
            ]
        );
        assert_eq!(
            warnings("'limit'", "", "overrides = { alice = ['2/s'] }"),
            ["policies.limit.overrides: are by name, and key has no \"identity\""]
        );
    }

    #[test]
    fn preflights_come_before_who_asks() {
        let message = |place: &str, who: &str| {
            format!(
                "{place}: {who} refuses preflights, which never say who asks: write pages before it"
            )
        };
        let key = "key = 'all'";
        assert_eq!(warnings("", "'keys', 'pages'", key), [message("routes[0].policies", "keys")]);
        assert_eq!(warnings("'either'", "'pages'", key), [message("routes[0].policies", "either")]);
        assert!(warnings("'pages', 'keys'", "", key).is_empty());
        assert!(warnings("'pages'", "'keys'", key).is_empty());
    }
}
