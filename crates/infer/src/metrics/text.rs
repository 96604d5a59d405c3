//! Prometheus' text format, version 0.0.4.
//!
//! Not here: which metrics there are.

use std::fmt::{Display, Write};

use super::counts::Tally;

/// The content type.
pub(crate) const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A scrape that is being written.
#[derive(Debug, Default)]
pub(super) struct Text(pub(super) String);

impl Text {
    /// Begins a metric. Everything of one name has to follow each other.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        if !help.is_empty() {
            let _ = writeln!(self.0, "# HELP {name} {help}");
        }
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
    }

    /// One line.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.0, " {value}");
    }

    /// The lines of a histogram. `scale` is how many of its units are one of the metric's.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        bounds: &[u64],
        tally: &Tally<N>,
        scale: f64,
    ) {
        let mut count = 0;
        for (place, bucket) in tally.buckets.iter().enumerate() {
            count += bucket;
            let bound = bounds
                .get(place)
                .map_or_else(|| "+Inf".to_owned(), |bound| (*bound as f64 / scale).to_string());
            let _ = write!(self.0, "{name}_bucket");
            self.labels(labels, Some(&bound));
            let _ = writeln!(self.0, " {count}");
        }
        let _ = write!(self.0, "{name}_count");
        self.labels(labels, None);
        let _ = writeln!(self.0, " {count}");
        let _ = write!(self.0, "{name}_sum");
        self.labels(labels, None);
        let _ = writeln!(self.0, " {}", tally.sum as f64 / scale);
    }

    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<&str>) {
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        for (index, (name, value)) in all.enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(name);
            self.0.push_str("=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if bound.is_some() || !labels.is_empty() {
            self.0.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped_and_buckets_add_up() {
        let mut text = Text::default();
        text.family("m", "histogram", "A thing.");
        let tally = Tally { buckets: [1, 0, 2], sum: 4_500 };
        text.histogram("m", &[("name", "a\"b\\c\nd")], &[500, 2_000], &tally, 1_000.0);
        text.sample("n", &[], 7);
        let want = "# HELP m A thing.\n# TYPE m histogram\n\
            m_bucket{name=\"a\\\"b\\\\c\\nd\",le=\"0.5\"} 1\n\
            m_bucket{name=\"a\\\"b\\\\c\\nd\",le=\"2\"} 1\n\
            m_bucket{name=\"a\\\"b\\\\c\\nd\",le=\"+Inf\"} 3\n\
            m_count{name=\"a\\\"b\\\\c\\nd\"} 3\n\
            m_sum{name=\"a\\\"b\\\\c\\nd\"} 4.5\nn 7\n";
        assert_eq!(text.0, want);
    }
}
