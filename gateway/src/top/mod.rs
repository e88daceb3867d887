//! `gateway top`: who connects, asks and is dropped, as a table that is drawn anew each second.

mod screen;
mod table;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::control::Report;
use crate::remote;
use screen::Screen;
pub use table::Sort;

/// How long a key waits to be heard, at most.
const KEY_DELAY: Duration = Duration::from_millis(50);

/// Before a gateway that did not answer is asked again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What is seen in the next second, as a table for people or as JSON.
///
/// # Errors
/// Why the gateway cannot be asked.
pub fn once(socket: &Path, sort: Sort, as_json: bool) -> Result<String, String> {
    let report = remote::sources(socket)?;
    if as_json {
        return serde_json::to_string_pretty(&report)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string());
    }
    Ok(table::text(&report, sort, SystemTime::now()))
}

/// The same again and again, until a key ends it.
///
/// # Errors
/// When there is no terminal, and when the gateway cannot be asked the first time.
pub fn live(socket: &Path, sort: Sort) -> Result<(), String> {
    if !io::stdout().is_terminal() {
        return Err("standard output is no terminal: use --once".to_owned());
    }
    // Said before the screen is cleared.
    let first = remote::sources(socket)?;
    let reports = follow(socket);
    let mut terminal = ratatui::try_init()
        .map_err(|error| format!("cannot draw on this terminal ({error}): use --once"))?;
    let mut screen = Screen::new(first, sort);
    let ended = loop {
        if let Err(error) = terminal.draw(|frame| screen.draw(frame, SystemTime::now())) {
            break Err(error.to_string());
        }
        match keys(&mut screen, &reports) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    ratatui::restore();
    ended
}

/// Asks on a thread of its own, which ends with the process.
fn follow(socket: &Path) -> Receiver<Result<Report, String>> {
    let (reports, told) = channel();
    let socket = socket.to_owned();
    thread::spawn(move || {
        loop {
            let report = remote::sources(&socket);
            let failed = report.is_err();
            if reports.send(report).is_err() {
                return;
            }
            if failed {
                thread::sleep(RETRY_DELAY);
            }
        }
    });
    told
}

/// Waits until there is something new to draw. False when a key has ended it.
fn keys(screen: &mut Screen, reports: &Receiver<Result<Report, String>>) -> Result<bool, String> {
    loop {
        let mut is_new = false;
        while event::poll(Duration::ZERO).map_err(|error| error.to_string())? {
            match event::read().map_err(|error| error.to_string())? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    if key.code == KeyCode::Char('c') && control || !screen.on(key.code) {
                        return Ok(false);
                    }
                    is_new = true;
                }
                Event::Resize(..) => is_new = true,
                _ => {}
            }
        }
        match reports.recv_timeout(if is_new { Duration::ZERO } else { KEY_DELAY }) {
            Ok(report) => {
                screen.show(report);
                return Ok(true);
            }
            Err(RecvTimeoutError::Timeout) if is_new => return Ok(true),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("nobody asks any more".to_owned()),
        }
    }
}
