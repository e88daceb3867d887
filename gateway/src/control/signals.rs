//! Signals become events.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use super::{Error, Event};

/// From here on SIGTERM, SIGINT and SIGHUP are the loop's business.
pub(super) fn watch(events: &UnboundedSender<Event>) -> Result<(), Error> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let events = events.clone();
        on(kind, move || drop(events.send(Event::Stop))).map_err(Error::Signals)?;
    }
    let events = events.clone();
    on(SignalKind::hangup(), move || drop(events.send(Event::Reload))).map_err(Error::Signals)
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
    async fn terminate_and_interrupt_stop_and_hangup_reloads() {
        let (events, mut inbox) = unbounded_channel();
        watch(&events).unwrap();
        for signal in [Signal::HUP, Signal::TERM, Signal::INT] {
            kill_process(getpid(), signal).unwrap();
        }
        let (mut stops, mut reloads) = (0, 0);
        for _ in 0..3 {
            match inbox.recv().await {
                Some(Event::Stop) => stops += 1,
                Some(Event::Reload) => reloads += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((stops, reloads), (2, 1));
    }
}
