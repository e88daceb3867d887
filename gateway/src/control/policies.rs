//! What all workers share of policies, over configurations.

use crate::config::{Config, Policy};
use crate::policy::Shared;

/// What the policies of the configuration before had.
#[derive(Debug, Default)]
pub(super) struct States(Vec<(Policy, Shared)>);

impl States {
    /// Those of a configuration that takes the place of the one before, in its order. A policy keeps what it
    /// had as far as it is what it was, so that a reload forgives nobody.
    pub fn of(&mut self, config: &Config) -> Vec<Shared> {
        let states = config.policies.iter().map(|policy| {
            let Policy { name, settings } = policy;
            let state = match self.0.iter().find(|(before, _)| before.name == *name) {
                Some((before, kept)) if before.settings == *settings => kept.clone(),
                Some((before, kept)) => settings.shared_after(&before.settings, kept),
                None => settings.shared(),
            };
            (policy.clone(), state)
        });
        self.0 = states.collect();
        self.0.iter().map(|(_, state)| state.clone()).collect()
    }
}
