//! What is asked of claims (RFC 7519 §4).

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use super::token::Flaw;
use crate::document::section::Section;
use crate::document::units::duration;
use crate::document::value::Kind;
use crate::document::values::{boolean, text};
use crate::exchange::context::claim;

const LEEWAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

/// What a token must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Who may have made it; anybody with a key if empty.
    issuers: Vec<String>,
    /// For whom it may be; for anybody if empty.
    audiences: Vec<String>,
    /// One of the values of each.
    required: Vec<(String, Vec<Value>)>,
    /// All of them.
    scopes: Vec<String>,
    leeway: Duration,
    require_exp: bool,
}

/// Seconds since 1970 between which a token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Period {
    begins: Option<f64>,
    ends: Option<f64>,
}

impl Rules {
    pub fn read(table: &mut Section<'_>) -> Self {
        Self {
            issuers: table.value("issuer", Vec::new(), texts),
            audiences: table.value("audience", Vec::new(), texts),
            required: table.entries("claims", |_, kind| values(kind)),
            scopes: table.value("scopes", Vec::new(), scopes),
            leeway: table.value("leeway", Duration::from_secs(60), duration(LEEWAY)),
            require_exp: table.value("require_exp", true, boolean),
        }
    }

    /// What of RFC 8725 §3.8 and §3.9 is not asked.
    pub fn loose(&self) -> impl Iterator<Item = &'static str> {
        let issuer = self.issuers.is_empty().then_some("issuer");
        issuer.into_iter().chain(self.audiences.is_empty().then_some("audience"))
    }

    /// All scopes, as challenges write them (RFC 6750 §3).
    pub fn scopes(&self) -> String {
        self.scopes.join(" ")
    }

    /// Whether the claims say what they must, apart from the time; between which times they count.
    pub fn check(&self, claims: &Value) -> Result<Period, Flaw> {
        let is_one_of = |all: &[String], found: Option<&Value>| {
            all.is_empty() || words(found).any(|word| all.iter().any(|own| own == word))
        };
        if !self.issuers.is_empty() && !claims.get("iss").is_some_and(Value::is_string) {
            return Err(Flaw::Wrong("token names no issuer"));
        }
        if !is_one_of(&self.issuers, claims.get("iss")) {
            return Err(Flaw::Wrong("token is of another issuer"));
        }
        if !is_one_of(&self.audiences, claims.get("aud")) {
            return Err(Flaw::Wrong("token is for another audience"));
        }
        let meets = |(name, values): &(String, Vec<Value>)| match claim(claims, name) {
            Some(Value::Array(all)) => all.iter().any(|one| values.contains(one)),
            found => found.is_some_and(|found| values.contains(found)),
        };
        if !self.required.iter().all(meets) {
            return Err(Flaw::Wrong("token lacks a required claim"));
        }
        let period = Period { begins: time(claims.get("nbf"))?, ends: time(claims.get("exp"))? };
        match period.ends {
            None if self.require_exp => Err(Flaw::Wrong("token never expires")),
            _ => Ok(period),
        }
    }

    /// Whether it may be used for what this policy stands before.
    pub fn has_scopes(&self, claims: &Value) -> bool {
        let has = |wanted: &String| {
            let found = [claims.get("scope"), claims.get("scp")];
            let mut all = found.into_iter().flat_map(words).flat_map(|text| text.split(' '));
            all.any(|own| own == wanted)
        };
        self.scopes.iter().all(has)
    }

    /// Whether a token counts now, in seconds since 1970.
    pub fn is_time(&self, period: Period, now: f64) -> Result<(), Flaw> {
        let leeway = self.leeway.as_secs_f64();
        match period {
            Period { ends: Some(ends), .. } if now >= ends + leeway => Err(Flaw::Expired),
            Period { begins: Some(begins), .. } if now + leeway < begins => {
                Err(Flaw::Wrong("token does not count yet"))
            }
            _ => Ok(()),
        }
    }
}

/// The texts of a text or a list of texts.
fn words(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, all) = match value {
        Some(Value::Array(all)) => (None, all.as_slice()),
        one => (one, &[][..]),
    };
    one.into_iter().chain(all).filter_map(Value::as_str)
}

/// RFC 7519 §2, NumericDate.
fn time(claim: Option<&Value>) -> Result<Option<f64>, Flaw> {
    let Some(claim) = claim else { return Ok(None) };
    let seconds = claim.as_f64().filter(|seconds| seconds.is_finite());
    seconds.map(Some).ok_or(Flaw::Wrong("token has a time that is none"))
}

/// One text, or some.
pub(super) fn texts(kind: &Kind) -> Result<Vec<String>, String> {
    let one = |kind: &Kind| match text(kind)? {
        "" => Err("is empty".to_owned()),
        text => Ok(text.to_owned()),
    };
    match kind {
        Kind::List(elements) if elements.is_empty() => Err("is empty".to_owned()),
        Kind::List(elements) => elements.iter().map(|element| one(&element.kind)).collect(),
        kind => Ok(vec![one(kind)?]),
    }
}

/// RFC 6749 §3.3.
fn scopes(kind: &Kind) -> Result<Vec<String>, String> {
    let all = texts(kind)?;
    let is_scope_byte = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    match all.iter().all(|scope| scope.bytes().all(is_scope_byte)) {
        true => Ok(all),
        false => Err("a scope is visible ASCII without quotes and backslashes".to_owned()),
    }
}

fn values(kind: &Kind) -> Result<Vec<Value>, String> {
    let one = |kind: &Kind| match kind {
        Kind::Text(text) => Ok(Value::from(text.as_str())),
        Kind::Integer(integer) => Ok(Value::from(*integer)),
        Kind::Boolean(boolean) => Ok(Value::from(*boolean)),
        _ => Err("must be a string, a whole number, true or false, or a list of these".to_owned()),
    };
    match kind {
        Kind::List(elements) if !elements.is_empty() => {
            elements.iter().map(|element| one(&element.kind)).collect()
        }
        kind => Ok(vec![one(kind)?]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::settings;
    use super::*;

    fn rules(lines: &str) -> Rules {
        settings(lines, Rules::read).unwrap()
    }

    #[test]
    fn claims_say_what_they_must() {
        for (lines, claims, expected) in [
            ("require_exp = false", json!({}), true),
            ("", json!({}), false),
            ("", json!({"exp": 1}), true),
            ("", json!({"exp": "1"}), false),
            ("", json!({"exp": 1, "nbf": null}), false),
            ("issuer = 'a'", json!({"exp": 1, "iss": "a"}), true),
            ("issuer = ['a', 'b']", json!({"exp": 1, "iss": "b"}), true),
            ("issuer = ['a', 'b']", json!({"exp": 1, "iss": ["b"]}), false),
            ("issuer = 'a'", json!({"exp": 1}), false),
            ("audience = 'a'", json!({"exp": 1, "aud": ["b", "a"]}), true),
            ("audience = ['a', 'c']", json!({"exp": 1, "aud": "c"}), true),
            ("audience = 'a'", json!({"exp": 1, "aud": "A"}), false),
            ("audience = 'a'", json!({"exp": 1}), false),
            ("claims = { t = 'a' }", json!({"exp": 1, "t": "a"}), true),
            ("claims = { t = 'a' }", json!({"exp": 1, "t": ["b", "a"]}), true),
            ("claims = { t = 'a' }", json!({"exp": 1, "t": "ab"}), false),
            ("claims = { t = 'a' }", json!({"exp": 1, "t": {"a": "a"}}), false),
            ("claims = { t = [7, true] }", json!({"exp": 1, "t": true}), true),
            ("claims = { t = [7, true] }", json!({"exp": 1, "t": "7"}), false),
            ("claims = { '/t/u' = 'a' }", json!({"exp": 1, "t": {"u": "a"}}), true),
            ("claims = { 't/u' = 'a' }", json!({"exp": 1, "t": {"u": "a"}}), false),
            ("claims = { 'x.y' = 'a' }", json!({"exp": 1, "x.y": "a"}), true),
        ] {
            assert_eq!(rules(lines).check(&claims).is_ok(), expected, "{lines} {claims}");
        }
    }

    #[test]
    fn scopes_are_words() {
        for (claims, expected) in [
            (json!({"scope": "b a"}), true),
            (json!({"scope": ["a", "b"]}), true),
            (json!({"scp": "a b c"}), true),
            (json!({"scope": "a", "scp": ["b"]}), true),
            (json!({"scope": "a"}), false),
            (json!({"scope": "ab a"}), false),
            (json!({"scopes": "a b"}), false),
            (json!({"scope": 1}), false),
        ] {
            assert_eq!(rules("scopes = ['a', 'b']").has_scopes(&claims), expected, "{claims}");
            assert!(rules("").has_scopes(&claims));
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let rules = rules("leeway = '10s'");
        let period = Period { begins: Some(100.0), ends: Some(200.0) };
        for (now, expected) in [
            (89.9, Err(Flaw::Wrong("token does not count yet"))),
            (90.0, Ok(())),
            (209.9, Ok(())),
            (210.0, Err(Flaw::Expired)),
        ] {
            assert_eq!(rules.is_time(period, now), expected);
        }
        assert_eq!(rules.is_time(Period::default(), 1e12), Ok(()));
    }
}
