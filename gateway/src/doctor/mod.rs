//! `gateway doctor`: what of the gateway works on this machine, what does not, and what to do about it. It looks
//! and changes nothing.

mod clock;
mod interface;
mod kernel;
mod machine;
mod network;
mod rights;

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::config::{self, Config, Overrides};
use crate::control;
use crate::xdp::{self, Mode};
use machine::Machine;

/// How it stands with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// What is asked for does not work.
    Fail,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What it belongs to, such as `kernel` or an interface.
    pub topic: String,
    /// What was looked at.
    pub check: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do, where something can be done.
    pub fix: Option<String>,
}

impl Finding {
    fn ok(topic: &str, check: &'static str, found: impl Into<String>) -> Self {
        let (topic, found) = (topic.to_owned(), found.into());
        Self { topic, check, status: Status::Ok, found, fix: None }
    }

    fn warn(topic: &str, check: &'static str, found: impl Into<String>, fix: &str) -> Self {
        Self { status: Status::Warn, fix: Some(fix.to_owned()), ..Self::ok(topic, check, found) }
    }

    fn fail(topic: &str, check: &'static str, found: impl Into<String>, fix: &str) -> Self {
        Self { status: Status::Fail, fix: Some(fix.to_owned()), ..Self::ok(topic, check, found) }
    }

    /// As [`Self::fail`] where it stands in the way of what is asked for, else as [`Self::warn`].
    fn fail_if(needed: bool, topic: &str, check: &'static str, found: String, fix: &str) -> Self {
        match needed {
            true => Self::fail(topic, check, found, fix),
            false => Self::warn(topic, check, found, fix),
        }
    }
}

/// What the gateway is wanted for.
#[derive(Debug)]
struct Wanted {
    /// Where the kernel program is to run.
    interfaces: Vec<String>,
    mode: Mode,
    /// Whether somebody asks for the kernel program, rather than what it would be like.
    kernel: bool,
    /// Answers are made in the driver: cookies, resets.
    answers: bool,
    cookies: bool,
    /// Where the program and what it knows are kept; and whether they are to be.
    pin: std::path::PathBuf,
    keeps: bool,
    config: Option<Config>,
}

/// What was found, in the order of topics.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Report(Vec<Finding>);

/// Looks at the machine; with a file, at what that asks for, and with interfaces, at those in place of the file's,
/// or of those with a default route.
pub fn examine(file: Option<&Path>, interfaces: &[String]) -> Report {
    let machine = Machine::here();
    let mut findings = Vec::new();
    let config = file.and_then(|file| {
        let loaded = config::load(Some(file), &Overrides::default(), &control::usable_cpus());
        let name = file.display().to_string();
        match loaded {
            Ok(config) => {
                findings.push(Finding::ok("configuration", "file", format!("{name} is valid")));
                Some(config)
            }
            Err(error) => {
                let fix = format!("`gateway check {name}` lists them again");
                let found = error.to_string();
                findings.push(Finding::fail("configuration", "file", found.trim_end(), &fix));
                None
            }
        }
    });
    let wanted = wanted(&machine, config, interfaces);
    findings.extend(kernel::look(&machine));
    findings.extend(rights::look(&machine, &wanted));
    findings.extend(network::look(&machine, &wanted));
    if wanted.kernel || wanted.config.is_none() {
        findings.extend(kernel::look_at_program(&machine, &wanted));
        for interface in &wanted.interfaces {
            findings.extend(interface::look(&machine, interface, &wanted));
        }
    }
    findings.extend(clock::look(&machine));
    Report(findings)
}

fn wanted(machine: &Machine, config: Option<Config>, interfaces: &[String]) -> Wanted {
    let settings = config.as_ref().and_then(|config| config.xdp.as_ref());
    let mut all = interfaces.to_vec();
    if all.is_empty() {
        all = settings.map_or_else(|| machine.interfaces(), |settings| settings.interfaces.clone());
    }
    let sources = config.as_ref().map(|config| &config.sources);
    let cookies = sources.is_some_and(|sources| sources.flood < u64::MAX);
    let resets = sources.is_some_and(|sources| sources.classes.iter().any(|class| class.resets));
    let keep = settings.and_then(|settings| settings.keep.clone());
    Wanted {
        interfaces: all,
        mode: settings.map_or(Mode::Auto, |settings| settings.mode),
        kernel: settings.is_some() || !interfaces.is_empty(),
        answers: cookies || resets,
        cookies,
        keeps: keep.is_some(),
        pin: keep.unwrap_or_else(|| xdp::PIN_FOLDER.into()),
        config,
    }
}

impl Report {
    /// Whether something that is asked for does not work.
    pub fn has_failed(&self) -> bool {
        self.0.iter().any(|finding| finding.status == Status::Fail)
    }

    /// As JSON: an array of findings.
    ///
    /// # Errors
    /// Never, as there are only texts in it.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// For people: a paragraph for each topic, and what will work.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut topic = "";
        for finding in &self.0 {
            if finding.topic != topic {
                let gap = if topic.is_empty() { "" } else { "\n" };
                topic = &finding.topic;
                // Writing to a String does not fail.
                let _ = writeln!(text, "{gap}{topic}");
            }
            let mark = match finding.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            let found = finding.found.replace('\n', "\n        ");
            let _ = writeln!(text, "  {mark}  {}: {found}", finding.check);
            if let Some(fix) = &finding.fix {
                let _ = writeln!(text, "        → {fix}");
            }
        }
        let count = |status| self.0.iter().filter(|finding| finding.status == status).count();
        let (warnings, failures) = (count(Status::Warn), count(Status::Fail));
        let verdict = match (warnings, failures) {
            (0, 0) => "all of it works".to_owned(),
            (1, 0) => "it works; one thing could be better".to_owned(),
            (warnings, 0) => format!("it works; {warnings} things could be better"),
            (_, 1) => "one thing stands in the way".to_owned(),
            (_, failures) => format!("{failures} things stand in the way"),
        };
        let _ = writeln!(text, "\n{verdict}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_stands_under_its_topic_with_what_to_do() {
        let report = Report(vec![
            Finding::ok("kernel", "release", "6.1.0"),
            Finding::warn("clock", "synchronised", "no", "run chrony"),
            Finding::fail("clock", "source", "none\nat all", "buy one"),
        ]);
        assert_eq!(
            report.text(),
            "kernel\n  ok    release: 6.1.0\n\nclock\n  warn  synchronised: no\n        → run chrony\n  \
             FAIL  source: none\n        at all\n        → buy one\n\none thing stands in the way\n"
        );
        assert!(report.has_failed());
        assert!(report.json().unwrap().contains("\"status\": \"fail\""));
    }
}
