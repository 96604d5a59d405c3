//! Statistics of categories: what targets the rows of a category, or of a combination, had in training.
//!
//! Not here: reading them (`json`, `cbm`).

use std::collections::HashMap;

/// What a statistic counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Borders,
    Buckets,
    Mean,
    Counter,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "Borders" => Self::Borders,
            "Buckets" => Self::Buckets,
            "BinarizedTargetMeanValue" | "FloatTargetMeanValue" => Self::Mean,
            "Counter" | "FeatureFreq" => Self::Counter,
            _ => return None,
        })
    }

    pub(super) fn at(number: u8) -> Option<Self> {
        [Self::Borders, Self::Buckets, Self::Mean, Self::Mean, Self::Counter, Self::Counter]
            .get(usize::from(number))
            .copied()
    }
}

/// What a combination is made of, in the order of hashing: categories, borders, values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Element {
    /// A category's index.
    Cat(usize),
    /// The index of a column of numbers, and a border.
    Above(usize, f32),
    /// A category's index and its hash.
    Is(usize, i32),
}

/// A statistic as a feature.
#[derive(Debug)]
pub(super) struct Ctr {
    pub(super) elements: Vec<Element>,
    pub(super) kind: Kind,
    /// Which table; set once the tables are read.
    pub(super) table: usize,
    pub(super) target_border: usize,
    pub(super) prior: (f32, f32),
    pub(super) shift: f32,
    pub(super) scale: f32,
    pub(super) borders: Vec<f32>,
}

/// Counts of a statistic by the hash of the combination.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) places: HashMap<u64, u32>,
    /// Counts, `classes` for each place.
    pub(super) counts: Vec<i32>,
    /// Sums and counts, for means.
    pub(super) means: Vec<(f32, i32)>,
    pub(super) classes: usize,
    pub(super) denominator: i32,
}

impl Table {
    /// What is wrong with the table for statistics of this kind.
    pub(super) fn check(&self, ctr: &Ctr) -> Result<(), String> {
        let last = self.places.values().max().map_or(0, |last| *last as usize + 1);
        let (have, classes) = match ctr.kind {
            Kind::Mean => (self.means.len(), 1),
            Kind::Counter => (self.counts.len(), 1),
            Kind::Borders | Kind::Buckets => (self.counts.len(), self.classes),
        };
        if classes == 0 || last.saturating_mul(classes) > have {
            return Err(format!("a table of {have} counts for {last} places of {classes}"));
        }
        let border_max = match ctr.kind {
            Kind::Buckets => classes.saturating_sub(1),
            // Two classes are told apart whatever the border.
            Kind::Borders if classes > 2 => classes - 2,
            Kind::Borders if classes < 2 => return Err("a table of one class".into()),
            _ => usize::MAX,
        };
        if ctr.target_border > border_max {
            return Err(format!("the target border {} of {classes} classes", ctr.target_border));
        }
        Ok(())
    }
}

impl Ctr {
    fn value(&self, good: f32, all: f32) -> f32 {
        ((good + self.prior.0) / (all + self.prior.1) + self.shift) * self.scale
    }

    /// The statistic of a combination.
    pub(super) fn of(&self, table: &Table, hash: u64) -> f32 {
        let Some(place) = table.places.get(&hash).map(|place| *place as usize) else {
            let all = if self.kind == Kind::Counter { table.denominator } else { 0 };
            return self.value(0.0, all as f32);
        };
        let sum = |counts: &[i32]| counts.iter().fold(0_i32, |sum, count| sum.wrapping_add(*count));
        let (good, all) = match self.kind {
            Kind::Mean => {
                let (sum, count) = table.means[place];
                return self.value(sum, count as f32);
            }
            Kind::Counter => (table.counts[place], table.denominator),
            Kind::Buckets => {
                let counts = &table.counts[place * table.classes..][..table.classes];
                (counts[self.target_border], sum(counts))
            }
            Kind::Borders => {
                let counts = &table.counts[place * table.classes..][..table.classes];
                let from = if table.classes > 2 { self.target_border + 1 } else { 1 };
                (sum(&counts[from..]), sum(counts))
            }
        };
        self.value(good as f32, all as f32)
    }
}
