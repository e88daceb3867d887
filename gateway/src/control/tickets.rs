//! Which listeners' settings seal session tickets with which keys.

use crate::config::Config;
use crate::tls::Tickets;
use crate::tls::server::Settings;

/// The keys of every configuration there has been.
#[derive(Debug)]
pub(super) struct Keys {
    /// Of all that ask nothing of clients.
    common: Tickets,
    /// Of those that do. rustls verifies no certificate when a session is taken up, so a ticket must
    /// open nowhere else, and not once something else is asked.
    own: Vec<(Settings, Tickets)>,
}

impl Keys {
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self, String> {
        Ok(Self { common: Tickets::new()?, own: Vec::new() })
    }

    /// Those of a configuration that takes the place of the one before, in its order. What asks of
    /// clients what it asked before has the keys it had.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn of(&mut self, config: &Config) -> Result<Vec<Tickets>, String> {
        let mut own = Vec::new();
        let mut all = Vec::with_capacity(config.tls.len());
        for settings in &config.tls {
            all.push(match (&settings.ticket_secrets, &settings.clients) {
                (Some(secrets), clients) => {
                    Tickets::shared(secrets, &settings.name, clients.as_ref())
                }
                (None, None) => self.common.clone(),
                (None, Some(_)) => {
                    let before =
                        self.own.iter().find(|(before, _)| asks_the_same(before, settings));
                    let tickets = before.map_or_else(Tickets::new, |(_, kept)| Ok(kept.clone()))?;
                    own.push((settings.clone(), tickets.clone()));
                    tickets
                }
            });
        }
        self.own = own;
        Ok(all)
    }
}

fn asks_the_same(before: &Settings, after: &Settings) -> bool {
    let strict = || Some(before.clients.as_ref()?.is_as_strict(after.clients.as_ref()?));
    before.name == after.name && strict() == Some(true)
}
