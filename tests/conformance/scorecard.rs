//! `SCORECARD.md`: who keeps which rule.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Case, Level};
use crate::proxies::Kind;

/// What one proxy made of every case.
pub struct Column {
    pub kind: Kind,
    pub version: String,
    /// By name.
    pub passed: BTreeMap<String, bool>,
}

impl Column {
    pub fn count(&self, cases: &[&Case]) -> usize {
        cases.iter().filter(|case| self.passed[&case.name]).count()
    }

    pub fn failed(&self, cases: &[Case], level: Level) -> Vec<String> {
        let failed = cases.iter().filter(|case| case.level == level && !self.passed[&case.name]);
        failed.map(|case| case.name.clone()).collect()
    }
}

/// The whole file.
pub fn render(cases: &[Case], columns: &[Column]) -> String {
    let mut page = String::from(
        "# Scorecard\n\nWritten by `cargo xtask conformance`; [README.md](README.md) says what a case is. \
         Each proxy runs with its\ndefaults and one plain route, and is held to what the RFCs permit, not \
         to what this gateway does within that.\n\n",
    );
    let names: Vec<_> = columns.iter().map(|column| column.version.as_str()).collect();
    writeln!(page, "| | cases | {} |", names.join(" | ")).unwrap();
    writeln!(page, "|---|---|{}", "---|".repeat(columns.len())).unwrap();
    let mut row = |title: &str, cases: &[&Case]| {
        let counts: Vec<_> = columns.iter().map(|column| column.count(cases).to_string()).collect();
        writeln!(page, "| {title} | {} | {} |", cases.len(), counts.join(" | ")).unwrap();
    };
    let all: Vec<&Case> = cases.iter().collect();
    let of =
        |level| -> Vec<&Case> { all.iter().copied().filter(|case| case.level == level).collect() };
    row("**MUST**", &of(Level::Must));
    row("**SHOULD**", &of(Level::Should));
    row("left open: the safe choice", &of(Level::May));
    row("all", &all);
    let mut themes: Vec<&str> = cases.iter().map(|case| case.theme.as_str()).collect();
    themes.dedup();
    for theme in themes {
        let cases: Vec<&Case> = all.iter().copied().filter(|case| case.theme == theme).collect();
        row(&theme.replace('_', " "), &cases);
    }

    page.push_str("\n## Cases that some proxy fails\n\n");
    writeln!(page, "| case | rule | level | {} |", names.join(" | ")).unwrap();
    writeln!(page, "|---|---|---|{}", "---|".repeat(columns.len())).unwrap();
    for case in cases {
        let marks: Vec<_> = columns.iter().map(|column| column.passed[&case.name]).collect();
        if marks.iter().all(|passed| *passed) {
            continue;
        }
        let marks: Vec<_> =
            marks.into_iter().map(|passed| if passed { "yes" } else { "**no**" }).collect();
        let level = match case.level {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::May => "open",
        };
        let name = case.name.replace('_', " ");
        writeln!(page, "| {name} | {} | {level} | {} |", case.rule, marks.join(" | ")).unwrap();
    }
    page
}
