//! What the gateway says of itself on its admin address.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::ADMIN;

/// Generous: beside a load generator on every core, this program waits its turn as well.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a 200; every other answer is an error.
pub fn get(path: &str) -> Result<String> {
    let address: SocketAddr = ADMIN.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer ends where the connection does.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {ADMIN}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// What the demo shows of `/metrics`.
pub struct Counts {
    pub responses: u64,
    connections_open: u64,
    /// `None` where no kernel program runs.
    pub kernel: Option<Kernel>,
}

/// New connections as the kernel program judged them.
pub struct Kernel {
    passed: u64,
    over_limit: u64,
}

impl Counts {
    pub fn read() -> Result<Self> {
        get("/metrics").map(|page| Self::from_page(&page)).context("the gateway's /metrics")
    }

    fn from_page(page: &str) -> Self {
        let packets = |reason: &str| sum(page, "gateway_xdp_packets_total", reason);
        Self {
            responses: sum(page, "gateway_responses_total", "").unwrap_or(0),
            connections_open: sum(page, "gateway_connections_open", "").unwrap_or(0),
            kernel: packets("").map(|_| Kernel {
                // This machine is always allowed, so what comes by lo is within no limit.
                passed: packets("reason=\"within_limit\"").unwrap_or(0)
                    + packets("reason=\"allowed\"").unwrap_or(0),
                over_limit: packets("reason=\"over_limit\"").unwrap_or(0),
            }),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5} connections open", self.connections_open)?;
        if let Some(Kernel { passed, over_limit }) = self.kernel {
            write!(f, "  kernel: {passed} passed, {over_limit} over the limit")?;
        }
        Ok(())
    }
}

/// All samples of a metric that have `label`, added up; `None` if there is none.
fn sum(page: &str, name: &str, label: &str) -> Option<u64> {
    let values = page.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let is_this_metric = labels.is_empty() || labels.starts_with('{');
        (is_this_metric && labels.contains(label)).then(|| value.parse::<u64>().ok())?
    });
    values.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_prometheus_would() {
        let page = "# HELP gateway_responses_total Finished requests.\n\
                    gateway_responses_total{code=\"200\"} 40\n\
                    gateway_responses_total{code=\"502\"} 2\n\
                    gateway_connections_open 7\n\
                    gateway_connections_opened 9\n";
        assert_eq!(Counts::from_page(page).to_string(), "    7 connections open");
        assert_eq!(Counts::from_page(page).responses, 42);

        let kernel = "gateway_xdp_packets_total{verdict=\"pass\",reason=\"within_limit\"} 200\n\
                      gateway_xdp_packets_total{verdict=\"observe\",reason=\"over_limit\"} 300\n\
                      gateway_xdp_packets_total{verdict=\"drop\",reason=\"over_limit\"} 5\n";
        assert_eq!(
            Counts::from_page(kernel).to_string(),
            "    0 connections open  kernel: 200 passed, 305 over the limit"
        );
    }
}
