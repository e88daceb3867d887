//! Values that only the whole configuration has: endpoints, pages, interfaces, CPUs.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;

use crate::document::problem::shown;
use crate::document::value::Kind;
use crate::document::values::{path, text};
use crate::exchange::pages::{Form, Page, Pages, STATUSES};
use crate::routing;
use crate::upstream::EndpointSpec;

/// Bytes of an interface's name (IFNAMSIZ without its NUL).
const INTERFACE_BYTES_MAX: usize = 15;

/// The largest page; it is sent as it is and held by every worker.
const PAGE_BYTES_MAX: u64 = 64 * 1024;

/// The folder whose files answer with the status they are named after.
pub(super) fn pages(kind: &Kind) -> Result<Pages, String> {
    let folder = path(kind)?;
    let unreadable = |path: &Path, error: io::Error| format!("{path:?}: {error}");
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(|error| unreadable(&folder, error))? {
        files.push(entry.map_err(|error| unreadable(&folder, error))?.path());
    }
    files.sort();
    let pages = files.iter().map(|file| {
        let extension = file.extension().and_then(|text| text.to_str());
        let status = file.file_stem().and_then(|text| text.to_str()).unwrap_or_default();
        let known = STATUSES.into_iter().find(|known| known.to_string() == status);
        let (Some(status), Some(form)) = (known, extension.and_then(Form::of)) else {
            return Err(format!("{file:?}: not named STATUS.html, .txt or .json, as in 404.html"));
        };
        let mut body = Vec::new();
        let opened = File::open(file).map_err(|error| unreadable(file, error))?;
        let mut bounded = opened.take(PAGE_BYTES_MAX + 1);
        bounded.read_to_end(&mut body).map_err(|error| unreadable(file, error))?;
        match body.len() as u64 > PAGE_BYTES_MAX {
            true => Err(format!("{file:?}: larger than {} KiB", PAGE_BYTES_MAX >> 10)),
            false => Ok(Page { status, form, body }),
        }
    });
    pages.collect::<Result<_, _>>().map(Pages)
}

/// `host:port`; an IPv6 address in brackets. Nothing is looked up here.
pub(super) fn endpoint(kind: &Kind) -> Result<EndpointSpec, String> {
    let text = text(kind)?;
    let wrong = |why: &str| format!("{} is not an endpoint: {why}", shown(text));
    if text.contains("://") {
        return Err(wrong("write host:port, without a scheme"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(wrong("it has no port, write \"127.0.0.1:9000\" or \"orders.internal:9000\""));
    };
    let port = port.parse().ok().filter(|&port| port != 0 && !text.contains('+'));
    let port = port.ok_or_else(|| wrong("the port must be 1 to 65535"))?;
    let address = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6).map(|ip| ip.to_string()),
        None if host.contains(':') => {
            return Err(wrong("an IPv6 address stands in brackets, as in \"[::1]:9000\""));
        }
        // A final dot keeps the resolver from trying its search domains.
        None => routing::is_name(host.strip_suffix('.').unwrap_or(host))
            .then(|| host.to_ascii_lowercase()),
    };
    let host = address.ok_or_else(|| wrong("write a DNS name or an IP address before the port"))?;
    Ok(EndpointSpec { host, port, weight: 1, backup: false })
}

pub(super) fn interface(kind: &Kind) -> Result<String, String> {
    let name = text(kind)?;
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    match (1..=INTERFACE_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(name.to_owned()),
        false => {
            Err(format!("{} is not an interface: write a name as `ip link` shows it", shown(name)))
        }
    }
}

/// The CPUs to run on: `"all"`, how many, or which; `cpus` are those the process may use.
pub(super) fn cores(kind: &Kind, cpus: &[usize]) -> Result<Vec<usize>, String> {
    let count = match kind {
        Kind::Text(text) if text == "all" => cpus.len(),
        Kind::Text(text) => match text.parse() {
            Ok(count) => count,
            Err(_) => return core_list(text, cpus),
        },
        Kind::Integer(count) => usize::try_from(*count).unwrap_or(0),
        other => {
            return Err(format!(
                "must be \"all\", a number or a list such as \"0-3,6\", is {}",
                other.name()
            ));
        }
    };
    match cpus.get(..count) {
        Some(cores) if count > 0 => Ok(cores.to_vec()),
        _ => {
            Err(format!("must be 1 to {}: this process may use CPUs {}", cpus.len(), ranges(cpus)))
        }
    }
}

fn core_list(text: &str, cpus: &[usize]) -> Result<Vec<usize>, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            return Err(format!(
                "{} is none of \"all\", a number, or a list such as \"0-3,6\"",
                shown(text)
            ));
        };
        if first > last {
            return Err(format!("{first}-{last} runs backwards: write {last}-{first}"));
        }
        // Ends at the first CPU there is not, so a huge range costs nothing.
        for core in first..=last {
            if !cpus.contains(&core) {
                return Err(format!("no CPU {core}: this process may use CPUs {}", ranges(cpus)));
            }
            if cores.contains(&core) {
                return Err(format!("CPU {core} is listed twice"));
            }
            cores.push(core);
        }
    }
    Ok(cores)
}

/// `0-3,6`, as `core_list` reads it.
fn ranges(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        Kind::Text(text.to_owned())
    }

    #[test]
    fn reads_cores() {
        let read = |text: &str| cores(&kind(text), &[0, 1, 2, 3, 6]);
        assert_eq!(read("all"), Ok(vec![0, 1, 2, 3, 6]));
        assert_eq!(read("2"), Ok(vec![0, 1]));
        assert_eq!(cores(&Kind::Integer(5), &[0, 1, 2, 3, 6]), Ok(vec![0, 1, 2, 3, 6]));
        assert_eq!(read("6,0-1"), Ok(vec![6, 0, 1]));
        assert_eq!(read("3-3"), Ok(vec![3]));
        let may_use = "this process may use CPUs 0-3,6".to_owned();
        assert_eq!(read("0"), Err(format!("must be 1 to 5: {may_use}")));
        assert_eq!(read("6"), Err(format!("must be 1 to 5: {may_use}")));
        assert_eq!(read("0-18446744073709551615"), Err(format!("no CPU 4: {may_use}")));
        for wrong in ["", "1,", "a", "1-", "-1", "2-1", "0,0", "0-1,1", "1 ,2", "*"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_endpoints() {
        let read = |text: &str| endpoint(&kind(text)).map(|spec| (spec.host, spec.port));
        assert_eq!(read("127.0.0.1:9000"), Ok(("127.0.0.1".to_owned(), 9000)));
        assert_eq!(read("[::1]:9000"), Ok(("::1".to_owned(), 9000)));
        assert_eq!(read("Orders.internal:1"), Ok(("orders.internal".to_owned(), 1)));
        for wrong in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "::1:1",
            "[a]:1",
            "[127.0.0.1]:1",
            "http://a:1",
            "a:1/",
            "a b:1",
            "[::1]",
            "a..b:1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
