//! The text exposition format itself.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::telemetry::metrics::{DURATION_BOUNDS_US, Histogram};

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text so far. Writing to a String does not fail, which is why results are dropped here.
pub(super) struct Page(pub String);

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        let mut separator = '{';
        for (label, value) in labels {
            let _ = write!(self.0, "{separator}{label}=\"{}\"", escaped(value));
            separator = ',';
        }
        self.0.push_str(if labels.is_empty() { " " } else { "} " });
        let _ = writeln!(self.0, "{value}");
    }

    /// The histograms summed: buckets are cumulative, and the count is their last one.
    pub(super) fn histogram<'a>(
        &mut self,
        name: &str,
        label: Option<(&str, &str)>,
        parts: impl Iterator<Item = &'a Histogram> + Clone,
    ) {
        let bounds = DURATION_BOUNDS_US.iter().map(|us| seconds(*us).to_string());
        let mut count = 0;
        for (index, bound) in bounds.chain(["+Inf".to_owned()]).enumerate() {
            count += parts
                .clone()
                .filter_map(|part| part.buckets.get(index))
                .map(|bucket| bucket.value())
                .sum::<u64>();
            let labels: Vec<_> = label.into_iter().chain([("le", bound.as_str())]).collect();
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        let labels: Vec<_> = label.into_iter().collect();
        let sum_us = parts.map(|part| part.sum_us.value()).sum();
        self.sample(&format!("{name}_sum"), &labels, seconds(sum_us));
        self.sample(&format!("{name}_count"), &labels, count);
    }
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
