//! `cargo xtask bench-policies`: what each policy adds to a request, as a table of what `cargo bench` prints.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const RESULTS: &str = "tests/bench/RESULTS.md";

const HEADING: &str = "## Policies\n";

/// What comes behind it there.
const NEXT: &str = "## The kernel program\n";

/// What a request takes without any.
const NONE: &str = "none";

/// What one policy takes: the least and the median time, and allocations.
#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    least_ns: f64,
    median_ns: f64,
    allocations: f64,
}

/// Measures, and writes the results if that is asked for.
pub fn run(write: bool) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--workspace", "--bench", "micro", "--", "policies::policy"]);
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kernel =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's version")?;
    let table = table(&rows(&String::from_utf8_lossy(&output.stdout)))?;
    let text = format!(
        "{HEADING}\nMade by `cargo xtask bench-policies --write` on Linux {}: what a policy's row has more than \
         that of a request which no policy looks at.\n\n{table}",
        kernel.split('-').next().unwrap_or_default().trim()
    );
    println!("{text}");
    if write {
        let before = fs::read_to_string(RESULTS).context(RESULTS)?;
        fs::write(RESULTS, replaced(&before, &text)).context(RESULTS)?;
        println!("written to {RESULTS}");
    }
    Ok(())
}

/// The page with its part about policies made anew.
fn replaced(page: &str, text: &str) -> String {
    let (before, behind) = match page.split_once(NEXT) {
        Some((before, behind)) => (before, format!("\n{NEXT}{behind}")),
        None => (page, String::new()),
    };
    let before = before.split(HEADING).next().unwrap_or_default().trim_end();
    format!("{before}\n\n{text}{behind}")
}

/// What divan prints: a line for each policy, and behind it how often it allocates.
fn rows(printed: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut counts_allocations = false;
    for line in printed.lines() {
        let line = line.trim_start_matches(['│', '├', '╰', '─', ' ']);
        let columns: Vec<_> = line.split('│').map(str::trim).collect();
        let (Some(first), Some(median)) = (columns.first(), columns.get(2)) else { continue };
        match (first.split_once(' '), nanoseconds(median)) {
            (Some((name, least)), Some(median_ns)) => {
                let Some(least_ns) = nanoseconds(least.trim()) else { continue };
                rows.push(Row { name: name.to_owned(), least_ns, median_ns, allocations: 0.0 });
            }
            _ if counts_allocations => {
                if let (Some(row), Ok(count)) = (rows.last_mut(), median.parse()) {
                    row.allocations = count;
                }
            }
            _ => {}
        }
        counts_allocations = *first == "alloc:";
    }
    rows
}

/// `1.25 µs`
fn nanoseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let factor = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

fn table(rows: &[Row]) -> Result<String> {
    let Some(none) = rows.iter().find(|row| row.name == NONE) else {
        bail!("the bench printed no row {NONE:?}");
    };
    let mut text =
        "| policy | ns, median | ns, least | allocations |\n|---|---|---|---|\n".to_owned();
    for row in rows.iter().filter(|row| row.name != NONE) {
        let Row { name, least_ns, median_ns, allocations } = row;
        let (median, least) = (median_ns - none.median_ns, least_ns - none.least_ns);
        let allocations = allocations - none.allocations;
        text += &format!("| {name} | {median:.0} | {least:.0} | {allocations:.0} |\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
Timer precision: 20 ns
micro                 fastest       │ slowest       │ median        │ mean          │ samples │ iters
╰─ policies                         │               │               │               │         │
   ╰─ policy                        │               │               │               │         │
      ├─ none         30.5 ns       │ 99 ns         │ 31 ns         │ 32 ns         │ 100     │ 6400
      ├─ jwt          1.2 µs        │ 4 µs          │ 1.331 µs      │ 1.4 µs        │ 100     │ 100
      │               max alloc:    │               │               │               │         │
      │                 3           │ 3             │ 3             │ 3             │         │
      │                 64 B        │ 64 B          │ 64 B          │ 64 B          │         │
      │               alloc:        │               │               │               │         │
      │                 2           │ 2             │ 2             │ 2             │         │
      │                 64 B        │ 64 B          │ 64 B          │ 64 B          │         │
      ╰─ rules        130.5 ns      │ 299 ns        │ 131 ns        │ 132 ns        │ 100     │ 1600
";

    #[test]
    fn what_is_more_than_without() {
        let expected = "| policy | ns, median | ns, least | allocations |\n|---|---|---|---|\n\
                        | jwt | 1300 | 1170 | 2 |\n| rules | 100 | 100 | 0 |\n";
        assert_eq!(table(&rows(PRINTED)).unwrap(), expected);
        assert!(table(&[]).is_err());
    }

    #[test]
    fn the_rest_of_the_page_stays() {
        let first = replaced("# Results\n\n## The kernel program\n\nx\n", "## Policies\n\na\n");
        assert_eq!(first, "# Results\n\n## Policies\n\na\n\n## The kernel program\n\nx\n");
        assert_eq!(replaced(&first, "## Policies\n\na\n"), first);
        assert_eq!(replaced("# Results\n", "## Policies\n"), "# Results\n\n## Policies\n");
    }
}
