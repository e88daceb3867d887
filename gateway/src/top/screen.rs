//! What is on the screen, and what keys do to it.

use std::time::SystemTime;

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

use super::table::{self, COLUMNS, Sort};
use crate::control::{Doings, Report};

const KEYS: &str = "n new  d dropped  w would be  o open  r requests  e 4xx  b bytes  x banned  \
                    ↑↓ scroll  p pause  q quit";

/// The state of the screen.
pub(super) struct Screen {
    report: Report,
    sort: Sort,
    /// Rows scrolled past.
    first: usize,
    /// Rows there was room for when it was last drawn.
    room: usize,
    is_paused: bool,
    /// Why there is nothing new.
    error: Option<String>,
}

impl Screen {
    pub fn new(report: Report, sort: Sort) -> Self {
        let mut new = Self { report, sort, first: 0, room: 0, is_paused: false, error: None };
        table::sort(&mut new.report.shown, sort);
        new
    }

    /// Takes what has come; what was there stays there when nothing has.
    pub fn show(&mut self, report: Result<Report, String>) {
        match report {
            Ok(report) if !self.is_paused => {
                self.report = report;
                table::sort(&mut self.report.shown, self.sort);
                self.error = None;
            }
            Ok(_) => self.error = None,
            Err(error) => self.error = Some(error),
        }
    }

    /// Does what a key is for. False when it is for ending.
    pub fn on(&mut self, key: KeyCode) -> bool {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('n') => self.sort_by(Sort::New),
            KeyCode::Char('d') => self.sort_by(Sort::Drops),
            KeyCode::Char('w') => self.sort_by(Sort::Would),
            KeyCode::Char('o') => self.sort_by(Sort::Open),
            KeyCode::Char('r') => self.sort_by(Sort::Requests),
            KeyCode::Char('e') => self.sort_by(Sort::Errors),
            KeyCode::Char('b') => self.sort_by(Sort::Bytes),
            KeyCode::Char('x') => self.sort_by(Sort::Banned),
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Up => self.first = self.first.saturating_sub(1),
            KeyCode::Down => self.first += 1,
            KeyCode::PageUp => self.first = self.first.saturating_sub(self.room),
            KeyCode::PageDown => self.first += self.room,
            KeyCode::Home => self.first = 0,
            _ => {}
        }
        true
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.first = 0;
        table::sort(&mut self.report.shown, sort);
    }

    pub fn draw(&mut self, frame: &mut Frame<'_>, now: SystemTime) {
        let layout =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]);
        let [head, body, foot] = layout.areas(frame.area());
        frame.render_widget(self.head(), head);
        frame.render_widget(KEYS.dim(), foot);

        // The titles and the sums are always there.
        self.room = usize::from(body.height).saturating_sub(2);
        let last = self.report.shown.len().saturating_sub(self.room);
        self.first = self.first.min(last);
        let rows = self.report.shown.iter().skip(self.first).take(self.room);
        let rows = std::iter::once(row(&self.report.total, now).bold())
            .chain(rows.map(|source| row(source, now)));
        let titles = COLUMNS.iter().map(|column| {
            let title = cell(column, column.title.to_owned());
            let is_sorted = column.sort == Some(self.sort);
            if is_sorted { title.style(Style::new().reversed().bold()) } else { title }
        });
        let widths = COLUMNS.iter().map(|column| Constraint::Length(column.width as u16));
        let table = Table::new(rows, widths).column_spacing(2);
        frame.render_widget(table.header(Row::new(titles).underlined()), body);
    }

    fn head(&self) -> Line<'_> {
        let sources = match self.report.sources {
            1 => "1 source".to_owned(),
            sources => format!("{sources} sources"),
        };
        let mut head = Line::from(format!("gateway top: {sources}").bold());
        if self.report.shown.len() < self.report.sources {
            head.push_span(format!(", the {} busiest", self.report.shown.len()));
        }
        match self.report.banned {
            0 => {}
            1 => head.push_span(", 1 ban"),
            bans => head.push_span(format!(", {bans} bans")),
        }
        if self.report.flood {
            head.push_span("  FLOOD of new sources".fg(Color::Red).bold());
        }
        if self.is_paused {
            head.push_span("  paused".fg(Color::Yellow));
        }
        if let Some(error) = &self.error {
            head.push_span(format!("  {error}").fg(Color::Red));
        }
        head
    }
}

fn row(doings: &Doings, now: SystemTime) -> Row<'static> {
    let cells = COLUMNS.iter().map(|column| cell(column, (column.text)(doings, now)));
    let row = Row::new(cells);
    if doings.banned_until.is_some() || doings.drops > 0.0 {
        row.fg(Color::Red)
    } else if doings.would_drop > 0.0 {
        row.fg(Color::Yellow)
    } else {
        row
    }
}

fn cell(column: &table::Column, text: String) -> Cell<'static> {
    let alignment = if column.sort.is_some() { Alignment::Right } else { Alignment::Left };
    Cell::from(Line::from(text).alignment(alignment))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::top::table::tests::{now, report};

    fn lines(screen: &mut Screen, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(110, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame, now())).unwrap();
        let drawn = terminal.backend().to_string();
        drawn.lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect()
    }

    #[test]
    fn the_busiest_are_on_top_by_what_a_key_says() {
        let mut screen = Screen::new(report(), Sort::Requests);
        let drawn = lines(&mut screen, 7);
        assert_eq!(drawn[0], "gateway top: 3 sources, 1 ban  FLOOD of new sources");
        assert!(drawn[1].starts_with("SOURCE ") && drawn[1].ends_with(" BANNED"));
        assert!(drawn[2].starts_with("all ") && drawn[2].contains(" 1.3k "));
        assert!(drawn[3].starts_with("2001:db8:aaaa:bbbb::/64 "));
        assert!(drawn[6].starts_with("n new "));

        assert!(screen.on(KeyCode::Char('d')));
        let drawn = lines(&mut screen, 7);
        assert!(drawn[3].starts_with("198.51.100.7 ") && drawn[3].ends_with(" 10m"));
        assert!(screen.on(KeyCode::Char('r')) && screen.on(KeyCode::Char('x')));
        assert!(lines(&mut screen, 7)[3].starts_with("198.51.100.7 "));
    }

    #[test]
    fn rows_scroll_as_far_as_there_are_any() {
        let mut screen = Screen::new(report(), Sort::Requests);
        for key in [KeyCode::Down, KeyCode::Down, KeyCode::PageDown] {
            screen.on(key);
        }
        let drawn = lines(&mut screen, 5);
        assert!(drawn[3].starts_with("198.51.100.7 "), "{drawn:?}");
        screen.on(KeyCode::Up);
        assert!(lines(&mut screen, 5)[3].starts_with("192.0.2.1 "));
        screen.on(KeyCode::Home);
        assert!(lines(&mut screen, 5)[3].starts_with("2001:db8:"));
    }

    #[test]
    fn what_was_there_stays_while_it_is_paused_or_nobody_answers() {
        let mut screen = Screen::new(report(), Sort::Requests);
        screen.show(Err("no gateway answers".to_owned()));
        let drawn = lines(&mut screen, 7);
        assert!(drawn[0].ends_with("no gateway answers"));
        assert!(drawn[3].starts_with("2001:"));

        screen.on(KeyCode::Char('p'));
        screen.show(Ok(Report::default()));
        let drawn = lines(&mut screen, 7);
        assert!(drawn[0].ends_with("paused") && drawn[3].starts_with("2001:"));

        screen.on(KeyCode::Char('p'));
        screen.show(Ok(Report::default()));
        assert_eq!(lines(&mut screen, 7)[0], "gateway top: 0 sources");
        assert!(!screen.on(KeyCode::Char('q')));
    }

    #[test]
    fn no_screen_is_too_small() {
        let mut screen = Screen::new(report(), Sort::Requests);
        for height in 1..4 {
            lines(&mut screen, height);
            screen.on(KeyCode::PageDown);
        }
    }
}
