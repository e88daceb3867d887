//! Starting, serving, draining: which event means what. No I/O and no clock, so that every order
//! of events can be tested.

use super::{Error, Event};
use crate::worker::mailbox;

/// What the loop does about an event.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Step {
    Wait,
    /// Every worker accepts connections.
    Serve,
    /// Tell the workers to drain. Comes at most once.
    Drain,
    /// End all but tunnels; end at once if there are none.
    Cut,
    /// Nothing is left to wait for.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Draining,
}

/// Why it did not end well.
#[derive(Debug)]
enum Failure {
    StartTimeout,
    Died { worker: usize, reason: String },
    DrainTimeout,
    SecondSignal,
}

/// Where the gateway is in its life.
#[derive(Debug)]
pub(super) struct Lifecycle {
    phase: Phase,
    workers: usize,
    listening: usize,
    gone: usize,
    /// The first one; those that follow are its consequences.
    failure: Option<Failure>,
    /// Connections that were no tunnels and were ended for the sake of those that are.
    cut: u64,
}

impl Lifecycle {
    pub(super) fn new(workers: usize) -> Self {
        Self { phase: Phase::Starting, workers, listening: 0, gone: 0, failure: None, cut: 0 }
    }

    /// Whether it is about to end.
    pub(super) fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
    }

    pub(super) fn on(&mut self, event: Event) -> Step {
        match event {
            Event::Worker(mailbox::Event::Listening { .. }) => self.worker_listens(),
            Event::Worker(mailbox::Event::Drained { worker }) => {
                if self.phase != Phase::Draining {
                    self.fail(Failure::Died { worker, reason: "it stopped unasked".to_owned() });
                }
                self.worker_gone()
            }
            Event::Worker(mailbox::Event::Died { worker, reason }) => {
                self.fail(Failure::Died { worker, reason });
                self.worker_gone()
            }
            Event::Stop if self.phase == Phase::Draining => {
                self.fail(Failure::SecondSignal);
                Step::End
            }
            Event::Stop => self.drain(),
            Event::StartTimeout if self.phase == Phase::Starting => {
                self.fail(Failure::StartTimeout);
                Step::End
            }
            Event::StartTimeout => Step::Wait,
            Event::Reload
            | Event::FilesChanged
            | Event::Resolved { .. }
            | Event::ListEnded
            | Event::ListChanged
            | Event::Banned
            | Event::Look { .. }
            | Event::Found(_) => Step::Wait,
            Event::DrainTimeout => Step::Cut,
            Event::TunnelDrainTimeout => {
                self.fail(Failure::DrainTimeout);
                Step::End
            }
        }
    }

    fn worker_listens(&mut self) -> Step {
        self.listening += 1;
        if self.phase == Phase::Starting && self.listening == self.workers {
            self.phase = Phase::Serving;
            return Step::Serve;
        }
        Step::Wait
    }

    /// A dead member of a SO_REUSEPORT group would swallow its share of the connections, so the
    /// others do not go on without it.
    fn worker_gone(&mut self) -> Step {
        self.gone += 1;
        if self.gone == self.workers { Step::End } else { self.drain() }
    }

    fn drain(&mut self) -> Step {
        if self.phase == Phase::Draining {
            return Step::Wait;
        }
        self.phase = Phase::Draining;
        Step::Drain
    }

    fn fail(&mut self, failure: Failure) {
        if let Failure::Died { worker, reason } = &failure {
            tracing::error!("worker {worker} died: {reason}");
        }
        self.failure.get_or_insert(failure);
    }

    /// So many connections were ended, and tunnels live on.
    pub(super) fn cut(&mut self, connections: u64) {
        self.cut = connections;
        if connections > 0 {
            self.fail(Failure::DrainTimeout);
        }
    }

    /// How it ended, with `connections` still open.
    pub(super) fn outcome(self, connections: u64) -> Result<(), Error> {
        let Some(failure) = self.failure else { return Ok(()) };
        let connections = self.cut + connections;
        Err(match failure {
            Failure::StartTimeout => {
                Error::StartTimeout { listening: self.listening, workers: self.workers }
            }
            Failure::Died { worker, reason } => Error::Died { worker, reason },
            Failure::DrainTimeout => Error::Cut { connections, second_signal: false },
            Failure::SecondSignal => Error::Cut { connections, second_signal: true },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(worker: usize) -> Event {
        Event::Worker(mailbox::Event::Listening { worker })
    }

    fn drained(worker: usize) -> Event {
        Event::Worker(mailbox::Event::Drained { worker })
    }

    fn died(worker: usize) -> Event {
        Event::Worker(mailbox::Event::Died { worker, reason: "no ring".to_owned() })
    }

    fn steps(lifecycle: &mut Lifecycle, events: impl IntoIterator<Item = Event>) -> Vec<Step> {
        events.into_iter().map(|event| lifecycle.on(event)).collect()
    }

    #[test]
    fn serves_when_all_listen_and_ends_when_all_have_drained() {
        let mut life = Lifecycle::new(2);
        let events =
            [listening(1), listening(0), Event::StartTimeout, Event::Stop, drained(0), drained(1)];
        assert_eq!(
            steps(&mut life, events),
            [Step::Wait, Step::Serve, Step::Wait, Step::Drain, Step::Wait, Step::End]
        );
        assert!(life.outcome(0).is_ok());
    }

    #[test]
    fn a_dead_worker_drains_the_rest() {
        let mut life = Lifecycle::new(2);
        let events = [listening(0), listening(1), died(1), drained(0)];
        assert_eq!(steps(&mut life, events), [Step::Wait, Step::Serve, Step::Drain, Step::End]);
        assert_eq!(life.outcome(0).unwrap_err().to_string(), "worker 1 died: no ring");
    }

    #[test]
    fn a_worker_that_dies_while_starting_ends_the_start() {
        let mut life = Lifecycle::new(2);
        assert_eq!(
            steps(&mut life, [died(0), listening(1), drained(1)]),
            [Step::Drain, Step::Wait, Step::End]
        );
        assert!(matches!(life.outcome(0), Err(Error::Died { worker: 0, .. })));
    }

    #[test]
    fn the_first_of_several_deaths_is_told() {
        let mut life = Lifecycle::new(2);
        assert_eq!(steps(&mut life, [died(1), died(0)]), [Step::Drain, Step::End]);
        assert!(matches!(life.outcome(0), Err(Error::Died { worker: 1, .. })));
    }

    #[test]
    fn a_worker_that_ends_unasked_is_a_failure() {
        let mut life = Lifecycle::new(1);
        assert_eq!(steps(&mut life, [listening(0), drained(0)]), [Step::Serve, Step::End]);
        assert!(matches!(life.outcome(0), Err(Error::Died { worker: 0, .. })));
    }

    #[test]
    fn a_stop_before_all_listen_drains_and_never_serves() {
        let mut life = Lifecycle::new(2);
        assert_eq!(
            steps(&mut life, [listening(0), Event::Stop, listening(1), drained(1), drained(0)]),
            [Step::Wait, Step::Drain, Step::Wait, Step::Wait, Step::End]
        );
        assert!(life.outcome(0).is_ok());
    }

    #[test]
    fn the_drain_timeout_and_a_second_signal_cut_connections() {
        for (event, second_signal) in [(Event::TunnelDrainTimeout, false), (Event::Stop, true)] {
            let mut life = Lifecycle::new(1);
            assert_eq!(
                steps(&mut life, [listening(0), Event::Stop, event]),
                [Step::Serve, Step::Drain, Step::End]
            );
            match life.outcome(3) {
                Err(Error::Cut { connections: 3, second_signal: signal }) => {
                    assert_eq!(signal, second_signal);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn tunnels_outlive_the_drain_timeout_and_what_was_cut_for_them_is_told() {
        for (cut, clean) in [(0, true), (2, false)] {
            let mut life = Lifecycle::new(1);
            let events = [listening(0), Event::Stop, Event::DrainTimeout];
            assert_eq!(steps(&mut life, events), [Step::Serve, Step::Drain, Step::Cut]);
            life.cut(cut);
            assert_eq!(life.on(drained(0)), Step::End);
            assert_eq!(life.outcome(0).is_ok(), clean);
        }
    }

    #[test]
    fn a_start_that_takes_too_long_ends() {
        let mut life = Lifecycle::new(2);
        assert_eq!(steps(&mut life, [listening(0), Event::StartTimeout]), [Step::Wait, Step::End]);
        assert_eq!(life.outcome(0).unwrap_err().to_string(), "only 1 of 2 workers came up in time");
    }
}
