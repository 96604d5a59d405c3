//! How far two models agree on the same rows. Pure.
//!
//! Not here: asking them (`answers`).

use std::collections::BTreeMap;

use serde::Serialize;

use super::answers::{Answers, Numbers};

/// One pair of different classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// What the first model says.
    pub first: String,
    /// What the second says.
    pub second: String,
    /// How often.
    pub count: usize,
    /// A row where it happens.
    pub row: usize,
}

/// How far numbers are apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gap {
    /// What they are in the first model, and in the second.
    pub names: (String, String),
    /// How many were compared.
    pub count: usize,
    /// The largest difference.
    pub max: f64,
    /// The row and column where it is, and both numbers.
    pub at: (usize, usize, f64, f64),
    /// The mean difference.
    pub mean: f64,
    /// How many differ by more than the tolerance times the larger of 1 and the number.
    pub beyond: usize,
}

/// What comes of comparing two sets of answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Agreement {
    /// Answers with a class that were compared.
    pub classes: usize,
    /// How many of them are the same.
    pub same: usize,
    /// The different ones, the most frequent first.
    pub confusions: Vec<Confusion>,
    /// The numbers, where both have as many of them.
    pub numbers: Option<Gap>,
    /// What could not be compared, and why.
    pub left_out: Vec<String>,
}

impl Agreement {
    /// The share of equal classes; 1 where there are none.
    pub fn share(&self) -> f64 {
        if self.classes == 0 { 1.0 } else { self.same as f64 / self.classes as f64 }
    }

    /// Whether everything that could be compared is within the tolerance, and something could be.
    pub fn holds(&self) -> bool {
        let compared = self.classes > 0 || self.numbers.is_some();
        compared && self.same == self.classes && self.numbers.as_ref().is_none_or(|gap| gap.beyond == 0)
    }
}

/// Compares answers about the same rows.
pub fn agreement(first: &Answers, second: &Answers, tolerance: f64) -> Agreement {
    let mut made = Agreement::default();
    match (&first.classes, &second.classes) {
        (Some(a), Some(b)) if a.len() == b.len() => compare_classes(a, b, &mut made),
        (Some(a), Some(b)) => {
            made.left_out.push(format!("classes: {} answers against {}", a.len(), b.len()));
        }
        (None, None) => {}
        _ => made.left_out.push("classes: only one of the models has some".into()),
    }
    match (&first.numbers, &second.numbers) {
        (Some(a), Some(b)) if a.width == b.width && a.cells.len() == b.cells.len() => {
            made.numbers = Some(compare_numbers(a, b, tolerance));
        }
        (Some(a), Some(b)) => made
            .left_out
            .push(format!("numbers: {} ({} a row) against {} ({} a row)", a.name, a.width, b.name, b.width)),
        (None, None) => {}
        _ => made.left_out.push("numbers: only one of the models has some".into()),
    }
    made
}

fn compare_classes(a: &[String], b: &[String], made: &mut Agreement) {
    let mut different: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for (row, (x, y)) in a.iter().zip(b).enumerate() {
        if x != y {
            different.entry((x, y)).or_insert((0, row)).0 += 1;
        }
    }
    made.classes = a.len();
    let confusion = |((first, second), (count, row)): ((&str, &str), (usize, usize))| Confusion {
        first: first.to_owned(),
        second: second.to_owned(),
        count,
        row,
    };
    made.confusions = different.into_iter().map(confusion).collect();
    made.confusions.sort_by_key(|confusion| std::cmp::Reverse(confusion.count));
    made.same = a.len() - made.confusions.iter().map(|confusion| confusion.count).sum::<usize>();
}

fn compare_numbers(a: &Numbers, b: &Numbers, tolerance: f64) -> Gap {
    let mut gap = Gap {
        names: (a.name.clone(), b.name.clone()),
        count: a.cells.len(),
        max: 0.0,
        at: (0, 0, 0.0, 0.0),
        mean: 0.0,
        beyond: 0,
    };
    let mut sum = 0.0;
    for (place, (x, y)) in a.cells.iter().zip(&b.cells).enumerate() {
        // Equal infinities differ by NaN, and a NaN on one side only is as far as can be.
        let apart = match (x == y || (x.is_nan() && y.is_nan()), (x - y).abs()) {
            (true, _) => 0.0,
            (false, apart) if apart.is_nan() => f64::INFINITY,
            (false, apart) => apart,
        };
        if apart > gap.max {
            gap.max = apart;
            gap.at = (place / a.width.max(1), place % a.width.max(1), *x, *y);
        }
        sum += apart;
        gap.beyond += usize::from(apart > tolerance * x.abs().max(1.0));
    }
    gap.mean = sum / gap.count.max(1) as f64;
    gap
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(classes: &[&str], cells: &[f64], width: usize) -> Answers {
        let classes = (!classes.is_empty()).then(|| classes.iter().map(|text| (*text).to_owned()).collect());
        let numbers =
            (width > 0).then(|| Numbers { name: "predict_proba".into(), width, cells: cells.to_vec() });
        Answers { classes, numbers }
    }

    #[test]
    fn different_classes_are_counted_by_pair() {
        let a = answers(&["x", "x", "y", "y", "x"], &[], 0);
        let b = answers(&["x", "y", "y", "x", "y"], &[], 0);
        let made = agreement(&a, &b, 0.0);
        assert_eq!((made.classes, made.same, made.holds()), (5, 2, false));
        let first = &made.confusions[0];
        assert_eq!((first.first.as_str(), first.second.as_str(), first.count, first.row), ("x", "y", 2, 1));
        assert!(agreement(&a, &a, 0.0).holds());
    }

    #[test]
    fn numbers_are_within_a_tolerance_or_not() {
        let a = answers(&[], &[1.0, 2.0, f64::NAN, 100.0], 2);
        let b = answers(&[], &[1.0, 2.5, f64::NAN, 100.001], 2);
        let gap = agreement(&a, &b, 1e-4).numbers.expect("compared");
        assert_eq!((gap.max, gap.at, gap.beyond), (0.5, (0, 1, 2.0, 2.5), 1));
        assert!(!agreement(&a, &b, 1e-6).holds() && agreement(&a, &b, 0.25).holds());
        let missing = answers(&[], &[1.0, 2.0, 3.0, 100.0], 2);
        assert_eq!(agreement(&a, &missing, 1.0).numbers.expect("compared").max, f64::INFINITY);
    }

    #[test]
    fn what_cannot_be_compared_never_holds() {
        let a = answers(&[], &[1.0, 2.0], 2);
        let b = answers(&["x"], &[1.0], 1);
        let made = agreement(&a, &b, 1.0);
        assert!(!made.holds() && made.left_out.len() == 2, "{made:?}");
    }
}
