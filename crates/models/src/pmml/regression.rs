//! Regression tables, for numbers and for classes.
//!
//! Not here: the schema around them (`mining`).

use super::fields::{Kind, Scope};
use super::mining::Scores;
use super::target::hold;
use super::xml::{El, short};
use crate::error::Result;

/// What scores become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    None,
    Simplemax,
    Softmax,
    Logit,
    Exp,
    Cloglog,
    Loglog,
    Cauchit,
}

impl Link {
    fn read(el: El<'_>) -> Result<Self> {
        Ok(match el.attr("normalizationMethod") {
            None | Some("none") => Self::None,
            Some("simplemax") => Self::Simplemax,
            Some("softmax") => Self::Softmax,
            Some("logit") => Self::Logit,
            Some("exp") => Self::Exp,
            Some("cloglog") => Self::Cloglog,
            Some("loglog") => Self::Loglog,
            Some("cauchit") => Self::Cauchit,
            Some(other) => return Err(el.refuse_value("normalizationMethod", other)),
        })
    }

    /// A number of its own, in the precision of the model.
    fn of(self, score: f64, is_float: bool) -> f64 {
        let held = |number: f64| hold(number, is_float);
        match self {
            Self::None | Self::Simplemax => score,
            Self::Softmax | Self::Logit => held(1.0 / held(1.0 + held((-score).exp()))),
            Self::Exp => held(score.exp()),
            Self::Cloglog => held(1.0 - held((-held(score.exp())).exp())),
            Self::Loglog => held((-held((-score).exp())).exp()),
            Self::Cauchit => held(0.5 + held(1.0 / std::f64::consts::PI * score.atan())),
        }
    }
}

/// One equation.
struct Table {
    class: u32,
    intercept: f64,
    /// Cell, exponent, coefficient.
    numbers: Vec<(usize, f64, f64)>,
    /// Cell, value, coefficient.
    categories: Vec<(usize, f64, f64)>,
    /// Cells whose product counts, coefficient.
    terms: Vec<(Vec<usize>, f64)>,
}

impl Table {
    fn read(el: El<'_>, scope: &mut Scope<'_>, is_classes: bool) -> Result<Self> {
        let class = match is_classes {
            true => scope.class(el.need("targetCategory")?),
            false => 0,
        };
        let mut table = Self {
            class,
            intercept: el.float("intercept")?.ok_or_else(|| el.error("it has no intercept"))?,
            numbers: Vec::new(),
            categories: Vec::new(),
            terms: Vec::new(),
        };
        for part in el.children() {
            let coefficient =
                part.float("coefficient")?.ok_or_else(|| part.error("it has no coefficient"))?;
            match part.name() {
                "NumericPredictor" => {
                    let slot = numbers(part, scope, part.need("name")?)?;
                    table.numbers.push((slot, part.float("exponent")?.unwrap_or(1.0), coefficient));
                }
                "CategoricalPredictor" => {
                    let slot = scope.slot(part, part.need("name")?)?;
                    let value = scope.encode(part, scope.slots[slot], part.need("value")?)?;
                    table.categories.push((slot, value, coefficient));
                }
                "PredictorTerm" => {
                    let mut cells = Vec::new();
                    for field in part.children() {
                        if field.name() != "FieldRef" {
                            return Err(field.refuse());
                        }
                        cells.push(numbers(field, scope, field.need("field")?)?);
                    }
                    table.terms.push((cells, coefficient));
                }
                _ => return Err(part.refuse()),
            }
        }
        Ok(table)
    }

    /// The equation's value; missing where a number that it needs is.
    fn score(&self, cells: &[f64], is_float: bool) -> f64 {
        let held = |number: f64| hold(number, is_float);
        let mut sum = 0.0;
        for (slot, exponent, coefficient) in &self.numbers {
            let value = if *exponent == 1.0 { cells[*slot] } else { held(cells[*slot].powf(*exponent)) };
            if cells[*slot].is_nan() {
                return f64::NAN;
            }
            sum = held(sum + held(held(*coefficient) * held(value)));
        }
        // A category that is missing is none of them.
        for (slot, value, coefficient) in &self.categories {
            if cells[*slot] == *value {
                sum = held(sum + held(*coefficient));
            }
        }
        for (factors, coefficient) in &self.terms {
            let product = factors.iter().fold(held(*coefficient), |all, slot| held(all * held(cells[*slot])));
            if product.is_nan() {
                return f64::NAN;
            }
            sum = held(sum + product);
        }
        held(sum + held(self.intercept))
    }
}

fn numbers(el: El<'_>, scope: &Scope<'_>, name: &str) -> Result<usize> {
    let slot = scope.slot(el, name)?;
    match scope.slots[slot] {
        Kind::Text(_) => Err(el.error(format!("the field {:?} is texts, not numbers", short(name)))),
        _ => Ok(slot),
    }
}

/// A `RegressionModel`.
pub(super) struct Regression {
    tables: Vec<Table>,
    link: Link,
    is_classes: bool,
    is_float: bool,
}

impl Regression {
    pub(super) fn read(el: El<'_>, scope: &mut Scope<'_>, is_classes: bool, is_float: bool) -> Result<Self> {
        let link = Link::read(el)?;
        let tables = el.children().filter(|child| child.name() == "RegressionTable");
        let tables = tables.map(|table| Table::read(table, scope, is_classes)).collect::<Result<Vec<_>>>()?;
        if is_classes {
            let many = !matches!(link, Link::None | Link::Simplemax | Link::Softmax);
            if tables.len() < 2 {
                return Err(el.error("a classification has two tables or more"));
            }
            if (many && tables.len() > 2) || link == Link::Exp {
                let name = el.attr("normalizationMethod").unwrap_or_default();
                return Err(el.refuse_value("normalizationMethod", name));
            }
        } else if tables.len() != 1 {
            return Err(el.error(format!("{} tables, expected one", tables.len())));
        } else if link == Link::Simplemax {
            return Err(el.refuse_value("normalizationMethod", "simplemax"));
        }
        Ok(Self { tables, link, is_classes, is_float })
    }

    pub(super) fn size(&self) -> usize {
        let size = |table: &Table| table.numbers.len() + table.categories.len() + table.terms.len() + 1;
        self.tables.iter().map(size).sum()
    }

    /// Adds the answer for a row.
    pub(super) fn answer(&self, cells: &[f64], row: usize, scores: &mut Scores) {
        if !self.is_classes {
            scores.numbers[row] = self.link.of(self.tables[0].score(cells, self.is_float), self.is_float);
            return;
        }
        let mut all: Vec<f64> = self.tables.iter().map(|table| table.score(cells, self.is_float)).collect();
        if all.iter().any(|score| score.is_nan()) {
            return scores.lose(row);
        }
        self.share(&mut all);
        let shares = scores.row(row);
        shares.fill(0.0);
        for (table, share) in self.tables.iter().zip(&all) {
            shares[table.class as usize] = *share;
        }
        scores.pick_most(row);
    }

    /// Scores become probabilities.
    fn share(&self, all: &mut [f64]) {
        let held = |number: f64| hold(number, self.is_float);
        match self.link {
            Link::Softmax => {
                let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                all.iter_mut().for_each(|score| *score = held(held(*score - most).exp()));
                let sum = all.iter().fold(0.0, |sum, score| held(sum + score));
                all.iter_mut().for_each(|score| *score = held(*score / sum));
            }
            Link::Simplemax => {
                let sum = all.iter().fold(0.0, |sum, score| held(sum + score));
                all.iter_mut().for_each(|score| *score = held(*score / sum));
            }
            // The last class has what the others leave.
            Link::None if all.len() > 2 => {
                if let [others @ .., last] = all {
                    *last = held(1.0 - others.iter().fold(0.0, |sum, score| held(sum + score)));
                }
            }
            // Of two classes the first one's equation decides; what is no probability is brought to the nearest.
            link => {
                let first = link.of(all[0], self.is_float).clamp(0.0, 1.0);
                (all[0], all[1]) = (first, held(1.0 - first));
            }
        }
    }
}
