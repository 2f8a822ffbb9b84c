//! What is measured, for people's monitoring.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a figure moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// It only grows, until the node starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// One figure, or one a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricView {
    /// Its name, as Prometheus has it: `souk_` and its unit at the end.
    pub name: String,
    /// What it is, in a sentence.
    pub help: String,
    /// How it moves.
    pub kind: MetricKind,
    /// Its values.
    pub samples: Vec<SampleView>,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleView {
    /// Labels and their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl MetricView {
    /// A figure with one value.
    #[must_use]
    pub fn one(name: &str, help: &str, kind: MetricKind, value: f64) -> Self {
        Self::many(name, help, kind, vec![(Vec::new(), value)])
    }

    /// A figure with values by labels.
    #[must_use]
    pub fn many(name: &str, help: &str, kind: MetricKind, values: Vec<(Vec<(&str, String)>, f64)>) -> Self {
        let label = |(name, value): (&str, String)| (name.to_owned(), value);
        let sample = |(labels, value): (Vec<(&str, String)>, f64)| SampleView {
            labels: labels.into_iter().map(label).collect(),
            value,
        };
        let samples = values.into_iter().map(sample).collect();
        Self { name: name.to_owned(), help: help.to_owned(), kind, samples }
    }
}

/// Prometheus' text format, version 0.0.4.
impl fmt::Display for MetricView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
        writeln!(f, "# HELP {} {help}\n# TYPE {} {kind}", self.name, self.name)?;
        for sample in &self.samples {
            f.write_str(&self.name)?;
            for (n, (name, value)) in sample.labels.iter().enumerate() {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                write!(f, "{}{name}=\"{value}\"", if n == 0 { '{' } else { ',' })?;
            }
            f.write_str(if sample.labels.is_empty() { "" } else { "}" })?;
            writeln!(f, " {}", sample.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_hold_cannot_break_the_format() {
        let labels = vec![("a", "x\"y\\z\nw".to_owned()), ("b", String::new())];
        let metric = MetricView::many("souk_x", "two\nlines", MetricKind::Gauge, vec![(labels, 1.5), (vec![], 2.0)]);
        let expected = "# HELP souk_x two\\nlines\n# TYPE souk_x gauge\n\
                        souk_x{a=\"x\\\"y\\\\z\\nw\",b=\"\"} 1.5\nsouk_x 2\n";
        assert_eq!(metric.to_string(), expected);
    }
}
