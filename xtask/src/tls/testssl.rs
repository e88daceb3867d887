//! What testssl.sh finds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::FOLDER;
use super::gateway::Gateway;

/// It takes a tenth of that.
const SECONDS_MAX: &str = "600";

/// Severities, from what is good to what is not. INFO and DEBUG judge nothing, and WARN is about
/// testssl.sh itself.
const SEVERITIES: [&str; 6] = ["OK", "LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"];
const ACCEPTED_WITHOUT_REASON: [&str; 2] = ["OK", "LOW"];

/// Findings above LOW that stand, and why.
const ACCEPTED: [(&str, &str); 1] =
    [("cert_revocation", "the test's chain: its authority has no revocation list and no OCSP")];

/// The findings that judge something.
pub struct Looked(Vec<Finding>);

struct Finding {
    id: String,
    severity: String,
    text: String,
}

/// Lets it look at the gateway's listener, without asking a name server.
pub fn look(gateway: &Gateway) -> Result<Looked> {
    let file = Path::new(FOLDER).join("testssl.json");
    // It asks before it overwrites.
    let _ = std::fs::remove_file(&file);
    let log = std::fs::File::create(Path::new(FOLDER).join("testssl.log"))?;
    let status = Command::new("timeout")
        .args([SECONDS_MAX, "testssl", "--quiet", "--color", "0", "--warnings", "off"])
        .args(["--nodns", "none", "--ip", "127.0.0.1"])
        .arg("--add-ca")
        .arg(&gateway.ca)
        .arg("--jsonfile")
        .arg(&file)
        .arg(format!("localhost:{}", gateway.address.port()))
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log)
        .status()
        .context("cannot run timeout")?;
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("testssl.sh wrote nothing, {status}: see {FOLDER}/testssl.log"))?;
    let all: Vec<_> = serde_json::from_str::<Vec<Value>>(&text)?.iter().map(Finding::new).collect();
    // The last of a run that went to its end.
    ensure!(all.iter().any(|finding| finding.id == "scanTime"), "testssl.sh was cut short");
    let judged = |finding: &Finding| SEVERITIES.contains(&finding.severity.as_str());
    Ok(Looked(all.into_iter().filter(judged).collect()))
}

impl Finding {
    fn new(value: &Value) -> Self {
        let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { id: text("id"), severity: text("severity"), text: text("finding") }
    }

    fn reason(&self) -> Option<&'static str> {
        ACCEPTED.iter().find(|(id, _)| *id == self.id).map(|(_, why)| *why)
    }

    fn needs_reason(&self) -> bool {
        !ACCEPTED_WITHOUT_REASON.contains(&self.severity.as_str())
    }
}

impl Looked {
    /// # Errors
    /// When there is a finding above LOW that is not accepted.
    pub fn judge(&self) -> Result<()> {
        let new =
            self.0.iter().filter(|finding| finding.needs_reason() && finding.reason().is_none());
        let new: Vec<_> =
            new.map(|Finding { id, severity, text }| format!("{severity} {id}: {text}")).collect();
        ensure!(new.is_empty(), "testssl.sh finds: {}", new.join("; "));
        Ok(())
    }

    /// The section of the results.
    pub fn render(&self) -> String {
        let mut counts = BTreeMap::<usize, usize>::new();
        for finding in &self.0 {
            let place = SEVERITIES.iter().position(|severity| *severity == finding.severity);
            *counts.entry(place.unwrap_or_default()).or_default() += 1;
        }
        let mut page = String::from("## testssl.sh\n\n| severity | findings |\n|---|---|\n");
        // Writing to a string cannot fail.
        for (place, count) in counts {
            let severity = SEVERITIES.get(place).copied().unwrap_or_default();
            let _ = writeln!(page, "| {severity} | {count} |");
        }
        page += "\n### Above LOW\n\n| finding | severity | what it says | why it stands |\n\
                 |---|---|---|---|\n";
        for finding in self.0.iter().filter(|finding| finding.needs_reason()) {
            let Finding { id, severity, text } = finding;
            let why = finding.reason().unwrap_or("**new**");
            let _ = writeln!(page, "| {id} | {severity} | {text} | {why} |");
        }
        page
    }
}
