//! From samples to a table: medians, with the least and the largest beside them, and ratios.

use std::fmt::Write as _;

use crate::scenario::{Sample, Scenario};

/// All samples of one scenario, a column for each round.
pub struct Measured {
    pub scenario: Scenario,
    /// What was special about it.
    pub remark: Option<String>,
    pub rows: Vec<Row>,
}

/// All samples of one proxy in one scenario.
pub struct Row {
    pub name: String,
    pub samples: Vec<Sample>,
}

/// The median, the least and the largest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub largest: f64,
}

impl Spread {
    /// `None` if there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let upper = *figures.get(middle)?;
        let lower = *figures.get((figures.len() - 1) / 2)?;
        let (least, largest) = (*figures.first()?, *figures.last()?);
        Some(Self { median: f64::midpoint(lower, upper), least, largest })
    }

    fn show(self, digits: usize) -> String {
        let Self { median, least, largest } = self;
        format!("{median:.digits$} ({least:.digits$}–{largest:.digits$})")
    }
}

/// What the first row costs, divided by what another costs, round by round. `None` if either had
/// errors, or no cost.
pub fn ratio(ours: &Row, theirs: &Row) -> Option<Spread> {
    let rounds = ours.samples.iter().zip(&theirs.samples);
    let figures: Option<Vec<f64>> = rounds
        .map(|(ours, theirs)| {
            let clean = ours.errors + theirs.errors == 0;
            clean.then_some(ours.cost()? / theirs.cost()?)
        })
        .collect();
    Spread::of(figures?)
}

/// One scenario's table, in Markdown.
pub fn table(measured: &Measured) -> String {
    let Measured { scenario, remark, rows } = measured;
    let mut text = format!("### {}\n\n{}", scenario.name, scenario.about);
    if let Some(remark) = remark {
        write!(text, "; {remark}").unwrap_or_default();
    }
    text.push_str(".\n\n");
    let first = rows.first();
    let name = first.map_or("", |row| row.name.as_str());
    if scenario.is_idle() {
        writeln!(text, "| | bytes per connection | {name} ÷ this |\n|---|---|---|")
            .unwrap_or_default();
    } else {
        writeln!(
            text,
            "| | CPU µs per request | user + system | {name} ÷ this | requests/s | core busy \
             | p50 µs | p99 µs | p99.9 µs |\n|---|---|---|---|---|---|---|---|---|"
        )
        .unwrap_or_default();
    }
    for (index, row) in rows.iter().enumerate() {
        let against = first.filter(|_| index > 0).and_then(|first| ratio(first, row));
        text.push_str(&line(row, against, scenario.is_idle()));
    }
    text
}

fn line(row: &Row, against: Option<Spread>, idle: bool) -> String {
    let errors: u64 = row.samples.iter().map(|sample| sample.errors).sum();
    if errors > 0 {
        let example = row.samples.iter().find_map(|sample| sample.error.as_deref());
        return format!("| {} | {errors} errors: {} |\n", row.name, example.unwrap_or_default());
    }
    let spread =
        |figure: &dyn Fn(&Sample) -> Option<f64>| Spread::of(row.samples.iter().filter_map(figure));
    let show = |figure: &dyn Fn(&Sample) -> Option<f64>, digits| {
        spread(figure).map_or("–".to_owned(), |spread| spread.show(digits))
    };
    let median = |figure: &dyn Fn(&Sample) -> Option<f64>, digits: usize| {
        spread(figure).map_or("–".to_owned(), |spread| format!("{:.digits$}", spread.median))
    };
    // What is lost is to be seen.
    let against = against.map_or("–".to_owned(), |ratio| match ratio.median > 1.0 {
        true => format!("**{}**", ratio.show(2)),
        false => ratio.show(2),
    });
    if idle {
        return format!("| {} | {} | {against} |\n", row.name, show(&|s| s.idle_bytes, 0));
    }
    format!(
        "| {} | {} | {} + {} | {against} | {} | {} % | {} | {} | {} |\n",
        row.name,
        show(&|sample| sample.cost(), 1),
        median(&|sample| sample.cpu.map(|(user, _)| user), 1),
        median(&|sample| sample.cpu.map(|(_, system)| system), 1),
        show(&|sample| Some(sample.requests_per_second), 0),
        median(&|sample| Some(100.0 * sample.busy), 0),
        median(&|sample| sample.latency.first().copied(), 0),
        median(&|sample| sample.latency.get(1).copied(), 0),
        median(&|sample| sample.latency.get(2).copied(), 0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, costs: &[f64]) -> Row {
        let sample = |cost: &f64| Sample { cpu: Some((*cost, 0.0)), ..Sample::default() };
        Row { name: name.to_owned(), samples: costs.iter().map(sample).collect() }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let spread = Spread { median: 2.5, least: 1.0, largest: 9.0 };
        assert_eq!(Spread::of([9.0, 1.0, 3.0, 2.0]), Some(spread));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn rounds_are_compared_with_their_own() {
        let (ours, theirs) = (row("a", &[1.0, 20.0, 3.0]), row("b", &[2.0, 40.0, 4.0]));
        assert_eq!(ratio(&ours, &theirs).unwrap().median, 0.5);
    }

    #[test]
    fn who_had_errors_is_compared_with_nobody() {
        let (ours, mut theirs) = (row("a", &[1.0]), row("b", &[2.0]));
        theirs.samples[0].errors = 1;
        theirs.samples[0].error = Some("answered 502".to_owned());
        assert_eq!(ratio(&ours, &theirs), None);
        assert!(line(&theirs, None, false).contains("1 errors: answered 502"));
    }

    #[test]
    fn a_cell_that_loses_stands_out() {
        let measured = Measured {
            scenario: crate::scenario::ALL[0],
            remark: None,
            rows: vec![row("a", &[3.0]), row("b", &[2.0]), row("c", &[6.0])],
        };
        let text = table(&measured);
        assert!(text.contains("**1.50 (1.50–1.50)**"), "{text}");
        assert!(text.contains("| 0.50 (0.50–0.50) |"), "{text}");
    }
}
