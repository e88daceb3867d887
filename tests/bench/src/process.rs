//! What a proxy costs: its processor time and memory, and those of its children, out of /proc.

use std::fs;
use std::ops::Sub;

use anyhow::{Context, Result};

/// Processor time used, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    pub fn total(self) -> f64 {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// What a process and its children have used.
pub fn cpu(pid: u32) -> Result<Cpu> {
    let mut sum = Cpu::default();
    for pid in family(pid)? {
        let (user, system) = ticks(&read(pid, "stat")?).context("/proc/PID/stat is odd")?;
        // The scheduler counts nanoseconds in all; only their division into user and system
        // is counted in ticks.
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            nanos += text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0u64);
        }
        let micros = nanos as f64 / 1000.0;
        let share = if user + system > 0 { user as f64 / (user + system) as f64 } else { 0.0 };
        sum.user += micros * share;
        sum.system += micros * (1.0 - share);
    }
    Ok(sum)
}

/// Fields 14 and 15; the name before them may have spaces and parentheses in it.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Memory of its own that a process and its children have in use, in bytes.
pub fn memory(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pid)? {
        let status = read(pid, "status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        sum += 1024 * kib.context("/proc/PID/status is odd")?;
    }
    Ok(sum)
}

fn family(pid: u32) -> Result<Vec<u32>> {
    let children = read(pid, &format!("task/{pid}/children"))?;
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    Ok(std::iter::once(pid).chain(children).collect())
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("{path}: has the proxy ended?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 12 34 0 0 20 0 1 0 5 0";
        assert_eq!(ticks(stat), Some((12, 34)));
    }

    #[test]
    fn what_this_process_uses_grows() {
        let (before, mut number) = (cpu(std::process::id()).unwrap(), 1u64);
        while (cpu(std::process::id()).unwrap() - before).total() < 1000.0 {
            number = number.wrapping_mul(3);
        }
        assert!(memory(std::process::id()).unwrap() > 0, "{number}");
    }
}
