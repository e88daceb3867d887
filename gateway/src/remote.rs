//! What the command line asks a running gateway, through its admin socket.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::control::Report;

/// How long a gateway may take to answer: it may have a hundred thousand networks to write.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of an answer: more than there may be bans.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Networks shown to people, those with the most hits.
const HITS_SHOWN: usize = 20;

/// Bans networks for so long.
///
/// # Errors
/// Why the gateway cannot be asked, or has not done all of it; a line each.
pub fn ban(
    socket: &Path,
    networks: &[String],
    lasts: Duration,
    reason: Option<&str>,
) -> Result<String, String> {
    let ban = |network: &String| json!({ "network": network, "seconds": lasts.as_secs(), "reason": reason.unwrap_or("by hand") });
    done(&ask(socket, "POST", "/bans", &networks.iter().map(ban).collect())?, "banned")
}

/// Ends bans.
///
/// # Errors
/// As for [`ban`].
pub fn unban(socket: &Path, networks: &[String]) -> Result<String, String> {
    let networks = networks.iter().map(|network| json!({ "network": network })).collect();
    done(&ask(socket, "POST", "/unban", &networks)?, "no longer banned")
}

/// Bans what another gateway, or this one earlier, has told as JSON.
///
/// # Errors
/// As for [`ban`].
pub fn import(socket: &Path, text: &str) -> Result<String, String> {
    let bans: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    done(&ask(socket, "POST", "/bans", &bans)?, "banned")
}

/// Who is banned, for people or as JSON.
///
/// # Errors
/// Why the gateway cannot be asked.
pub fn bans(socket: &Path, as_json: bool) -> Result<String, String> {
    let bans = ask(socket, "GET", "/bans", &Value::Null)?;
    if as_json {
        return serde_json::to_string_pretty(&bans)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string());
    }
    let mut text = String::new();
    let all = bans.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return Ok("nobody is banned\n".to_owned());
    }
    let _ = writeln!(
        text,
        "{:<39} {:>9} {:>7} {:>10} {:<8} reason",
        "network", "left", "ban", "drops", "by"
    );
    for ban in all {
        let number = |key: &str| ban.get(key).and_then(Value::as_u64).unwrap_or(0);
        let word = |key: &str| ban.get(key).and_then(Value::as_str).unwrap_or_default();
        let left = format!("{}s", number("seconds"));
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{:<39} {left:>9} {:>7} {:>10} {:<8} {}",
            word("network"),
            format!("no. {}", number("level") + 1),
            number("drops"),
            word("kept_by"),
            word("reason"),
        );
    }
    Ok(text)
}

/// What the kernel program is about, for people or as JSON.
///
/// # Errors
/// Why the gateway cannot be asked.
pub fn xdp_status(socket: &Path, as_json: bool) -> Result<String, String> {
    let status = ask(socket, "GET", "/xdp", &Value::Null)?;
    if as_json {
        return serde_json::to_string_pretty(&status)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string());
    }
    let list = |key: &str| status.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let word = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    let interfaces = list("interfaces");
    if interfaces.is_empty() {
        return Ok("no kernel program: lists, bans and connections_max are kept at accept\n".into());
    }
    let mut text = String::new();
    // Writing to a String does not fail.
    for interface in &interfaces {
        let (name, mode) = (word(interface, "name"), word(interface, "mode"));
        let _ = match interface.get("attached").and_then(Value::as_bool) {
            Some(false) => writeln!(text, "{name}: NOT attached any more; restart the gateway"),
            _ => writeln!(text, "{name}: {mode} mode"),
        };
    }
    let _ = writeln!(text, "{:<16}{:<10}{:<22}{:>14}", "interface", "verdict", "reason", "packets");
    for counter in list("packets").iter().filter(|counter| number(counter, "packets") > 0) {
        let (verdict, reason) = (word(counter, "verdict"), word(counter, "reason"));
        let (interface, packets) = (word(counter, "interface"), number(counter, "packets"));
        let _ = writeln!(text, "{interface:<16}{verdict:<10}{reason:<22}{packets:>14}");
    }
    if status.get("flood").and_then(Value::as_bool) == Some(true) {
        text.push_str(
            "a flood of new sources: connections are, or would be, answered by SYN cookies\n",
        );
    }
    let (networks, bans) = (number(&status, "networks"), number(&status, "bans"));
    let _ = writeln!(text, "{networks} networks on lists, {bans} bans");
    let by_workers = number(&status, "bans_by_workers");
    if by_workers > 0 {
        let _ = writeln!(
            text,
            "{by_workers} of the bans are of clients of proxies and balancers: not dropped here, as others' packets \
             come from there, too, but answered with 403"
        );
    }
    let hits = list("hits");
    if !hits.is_empty() {
        let _ = writeln!(text, "{:<43}{:>14}  by", "most hit", "packets");
    }
    for entry in hits.iter().take(HITS_SHOWN) {
        let (network, packets) = (word(entry, "network"), number(entry, "packets"));
        let (origin, comment) = (word(entry, "origin"), word(entry, "comment"));
        let comment = if comment.is_empty() { comment } else { format!(" # {comment}") };
        let _ = writeln!(text, "{network:<43}{packets:>14}  {origin}{comment}");
    }
    if hits.len() > HITS_SHOWN {
        let _ = writeln!(text, "and {} more: --json", hits.len() - HITS_SHOWN);
    }
    Ok(text)
}

/// What sources do in the next second.
///
/// # Errors
/// Why the gateway cannot be asked.
pub fn sources(socket: &Path) -> Result<Report, String> {
    let report = ask(socket, "GET", "/sources", &Value::Null)?;
    serde_json::from_value(report).map_err(|error| format!("a gateway of another version: {error}"))
}

/// A line for each network.
fn done(results: &Value, verb: &str) -> Result<String, String> {
    let (mut done, mut failed) = (String::new(), String::new());
    for result in results.as_array().map(Vec::as_slice).unwrap_or_default() {
        let word = |key: &str| result.get(key).and_then(Value::as_str);
        let network = word("network").unwrap_or("?");
        let _ = match (word("error"), word("instead_of")) {
            (Some(error), _) => writeln!(failed, "{network}: {error}"),
            (None, None) => writeln!(done, "{network}: {verb}"),
            (None, Some(other)) => {
                writeln!(done, "{network}: {verb}, and {other} no longer: there are too many bans")
            }
        };
    }
    if failed.is_empty() { Ok(done) } else { Err(done + failed.trim_end()) }
}

fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let at = socket.display();
    let answer = exchange(socket, method, path, body).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!(
                "no gateway answers at {at}: start one with admin.socket, or name it by --socket"
            )
        }
        io::ErrorKind::PermissionDenied => format!("{at}: only the gateway's owner may ask it"),
        _ => format!("{at}: {error}"),
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let answered: Result<Value, _> = serde_json::from_str(body);
    match answered {
        Ok(value) if head.starts_with("HTTP/1.1 200 ") => Ok(value),
        Ok(value) => Err(value.get("error").map_or_else(|| body.to_owned(), Value::to_string)),
        Err(_) => Err(format!("{at}: {}", head.lines().next().unwrap_or("no answer"))),
    }
}

fn exchange(socket: &Path, method: &str, path: &str, body: &Value) -> io::Result<String> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
