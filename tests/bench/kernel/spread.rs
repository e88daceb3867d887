//! Figures of several rounds.

/// The median, the least and the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub largest: f64,
}

impl Spread {
    pub fn of(figures: &[f64]) -> Self {
        let mut figures = figures.to_vec();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let lower = figures[(figures.len() - 1) / 2];
        Self {
            median: f64::midpoint(lower, figures[middle]),
            least: figures[0],
            largest: figures[figures.len() - 1],
        }
    }

    pub fn show(self, digits: usize) -> String {
        let Self { median, least, largest } = self;
        format!("{median:.digits$} ({least:.digits$}–{largest:.digits$})")
    }
}
