//! What policies say of a request, by which of their settings, and what they change.

use super::Lines;
use crate::config::Config;
use crate::exchange::{Context, Identity, Request};
use crate::http::edits::Edits;
use crate::policy::{self, Named, Verdict};
use crate::telemetry::metrics;

/// What a policy says, in words.
fn told(verdict: Verdict, context: &Context) -> String {
    match verdict {
        Verdict::Continue => "lets it pass".to_owned(),
        Verdict::Wait => "takes its time, and then lets it pass or not".to_owned(),
        Verdict::Answer(status) => format!("answers {status}"),
        Verdict::Refuse(error) => {
            let reason = context.reason.borrow();
            let reason = reason.as_deref().unwrap_or(error.message());
            format!("{}, {reason}", error.status().unwrap_or_default())
        }
    }
}

impl Lines {
    /// False when one of them answers.
    pub(super) fn policies(
        &mut self,
        config: &Config,
        positions: &[usize],
        request: &Request<'_>,
        context: &Context,
    ) -> bool {
        if positions.is_empty() {
            return true;
        }
        let all = config.policies.iter();
        let all = all.map(|policy| (&*policy.name, &policy.settings, policy.settings.shared()));
        let named = Named::new(all, &metrics::Worker::new());
        for at in positions {
            let settings = config.policies.get(*at).map(|policy| &policy.settings);
            for member in settings.into_iter().flat_map(policy::Settings::members) {
                // By itself, as if nobody were asked after it.
                let (identity, context) = (Identity::default(), Context::default());
                let request = &Request { identity: &identity, ..*request };
                let position = config.policies.iter().position(|policy| policy.name == *member);
                if let Some(at) = position {
                    self.policy("one of", config, &named, at, request, &context);
                }
            }
            let verdict = self.policy("policy", config, &named, *at, request, context);
            if matches!(verdict, Some(Verdict::Answer(_) | Verdict::Refuse(_))) {
                return false;
            }
        }
        true
    }

    fn policy(
        &mut self,
        what: &str,
        config: &Config,
        named: &Named,
        at: usize,
        request: &Request<'_>,
        context: &Context,
    ) -> Option<Verdict> {
        let policy = config.policies.get(at)?;
        let [request_before, response_before] =
            [&context.request_edits, &context.response_edits].map(|edits| edits.borrow().clone());
        let verdict = named.ask(at, request, context)?;
        self.say(what, format!("{}: {}", policy.name, told(verdict, context)));
        let rule = named.rule(at, request).unwrap_or_default();
        if !rule.is_empty() {
            self.say("  rule", rule);
        }
        self.changes("  request", &request_before, &context.request_edits.borrow());
        self.changes("  answer", &response_before, &context.response_edits.borrow());
        Some(verdict)
    }

    /// What has been changed since.
    fn changes(&mut self, what: &str, before: &Edits, after: &Edits) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for name in after.removed().filter(|name| !before.removes(name)) {
            if after.values(name).next().is_none() {
                self.say(what, format!("without {}", text(name)));
            }
        }
        let known: Vec<_> = before.added().collect();
        for (name, value) in after.added().filter(|field| !known.contains(field)) {
            self.say(what, format!("{}: {}", text(name), text(value)));
        }
        if let Some(query) = after.query().filter(|query| before.query() != Some(query)) {
            self.say(what, format!("with the query {:?}", text(query)));
        }
    }
}
