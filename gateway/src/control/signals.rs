//! Signals become events.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use super::{Error, Event};

/// From here on SIGTERM and SIGINT are the loop's business. SIGHUP, which would end the process,
/// is only remarked on: an operator who sends it expects a reload, not an outage.
pub(super) fn watch(events: &UnboundedSender<Event>) -> Result<(), Error> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let events = events.clone();
        on(kind, move || drop(events.send(Event::Stop))).map_err(Error::Signals)?;
    }
    on(SignalKind::hangup(), || {
        tracing::warn!("SIGHUP ignored: a changed configuration takes effect at the next start");
    })
    .map_err(Error::Signals)
}

fn on(kind: SignalKind, act: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signal = signal(kind)?;
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            act();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};
    use tokio::sync::mpsc::unbounded_channel;

    #[tokio::test]
    async fn terminate_and_interrupt_stop_and_hangup_does_nothing() {
        let (events, mut inbox) = unbounded_channel();
        watch(&events).unwrap();
        for signal in [Signal::HUP, Signal::TERM, Signal::INT] {
            kill_process(getpid(), signal).unwrap();
        }
        assert!(matches!(inbox.recv().await, Some(Event::Stop)));
        assert!(matches!(inbox.recv().await, Some(Event::Stop)));
        assert!(inbox.is_empty());
    }
}
