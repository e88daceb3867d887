//! The cases of `tests/tls`, each of which says by itself what has to come of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::PYTHON;
use super::gateway::Gateway;

/// Bounds the whole of it; it takes a tenth of that.
const SECONDS_MAX: &str = "240";

/// What came of every case.
pub struct Played(Vec<Case>);

struct Case {
    /// tlsfuzzer's name for what it is about.
    script: String,
    what: String,
    expected: String,
    outcome: String,
    passed: bool,
    /// Why it does not pass.
    known: Option<String>,
}

/// Plays the cases that have all of `words`.
pub fn play(gateway: &Gateway, words: &[String]) -> Result<Played> {
    let output = Command::new("timeout")
        .args([SECONDS_MAX, PYTHON, "-B", "tests/tls/fuzz.py"])
        .arg(gateway.address.port().to_string())
        .arg(&gateway.ca)
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run timeout")?;
    ensure!(output.status.success(), "tests/tls/fuzz.py: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let cases: Vec<_> = text.lines().map(Case::parse).collect::<Result<_>>()?;
    ensure!(!cases.is_empty(), "no case has all of {words:?}");
    Ok(Played(cases))
}

impl Case {
    fn parse(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let needed = |name: &str| text(name).with_context(|| format!("no {name} in {line}"));
        Ok(Self {
            script: needed("script")?,
            what: needed("what")?,
            expected: needed("expected")?,
            outcome: needed("outcome")?,
            passed: value.get("passed") == Some(&Value::Bool(true)),
            known: text("known"),
        })
    }

    /// Whether it does what nobody expects: fails, or passes although it is known to fail.
    fn is_surprise(&self) -> bool {
        self.passed == self.known.is_some()
    }
}

impl Played {
    /// What does not pass, also of what is known not to if `known`, and how many do.
    pub fn print(&self, known: bool) {
        let told = |case: &&Case| case.is_surprise() || (known && !case.passed);
        for case in self.0.iter().filter(told) {
            let Case { script, what, expected, outcome, known, .. } = case;
            let known = known.as_deref().map(|why| format!(" (known: {why})")).unwrap_or_default();
            println!("{script}, {what}: {outcome}, expected {expected}{known}");
        }
        println!("tls: {} of {} cases pass", self.passed(), self.0.len());
    }

    /// # Errors
    /// When a case does what nobody expects.
    pub fn judge(&self) -> Result<()> {
        let surprises: Vec<_> =
            self.0.iter().filter(|case| case.is_surprise()).map(|case| &*case.what).collect();
        ensure!(surprises.is_empty(), "not as expected: {}", surprises.join("; "));
        Ok(())
    }

    fn passed(&self) -> usize {
        self.0.iter().filter(|case| case.passed).count()
    }

    /// The section of the results.
    pub fn render(&self) -> String {
        let mut page = format!(
            "## Handshakes\n\n{} of {} cases end as they have to. After each, another client is served.\n\n\
             | after tlsfuzzer's | expected | cases | as expected |\n|---|---|---|---|\n",
            self.passed(),
            self.0.len()
        );
        let mut rows = BTreeMap::<(&str, &str), (usize, usize)>::new();
        for case in &self.0 {
            let row = rows.entry((&case.script, &case.expected)).or_default();
            *row = (row.0 + 1, row.1 + usize::from(case.passed));
        }
        // Writing to a string cannot fail.
        for ((script, expected), (cases, passed)) in rows {
            let expected = alternatives(expected);
            let _ = writeln!(page, "| {script} | {expected} | {cases} | {passed} |");
        }
        page += "\n### Those that do not\n\n\
                 | after tlsfuzzer's | case | expected | what comes | why it stands |\n\
                 |---|---|---|---|---|\n";
        for case in self.0.iter().filter(|case| !case.passed) {
            let Case { script, what, expected, outcome, known, .. } = case;
            let (expected, why) = (alternatives(expected), known.as_deref().unwrap_or("**new**"));
            let _ = writeln!(page, "| {script} | {what} | {expected} | {outcome} | {why} |");
        }
        page
    }
}

/// A bar would end a table's cell.
fn alternatives(expected: &str) -> String {
    expected.replace('|', " or ")
}
