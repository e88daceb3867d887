//! What all workers share of policies, over configurations.

use crate::config::{Config, Policy};
use crate::policy::Shared;

/// What the policies of the configuration before had.
#[derive(Debug, Default)]
pub(super) struct States(Vec<(Policy, Shared)>);

impl States {
    /// Those of a configuration that takes the place of the one before, in its order. A policy that is
    /// what it was keeps what it had, so that a reload forgives nobody.
    pub fn of(&mut self, config: &Config) -> Vec<Shared> {
        let states = config.policies.iter().map(|policy| {
            let kept = self.0.iter().find(|(before, _)| before == policy);
            let state = kept.map_or_else(|| policy.settings.shared(), |(_, kept)| kept.clone());
            (policy.clone(), state)
        });
        self.0 = states.collect();
        self.0.iter().map(|(_, state)| state.clone()).collect()
    }
}
