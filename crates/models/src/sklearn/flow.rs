//! Which columns are texts, from the input of a model to its last step.
//!
//! Most steps take and give numbers. Encoders take texts, imputers of texts give them on, and what passes through
//! is whatever came. Joining steps decides at load what each column of the input has to be, so that a request
//! with a text in a column of numbers is refused before anything is computed.
//!
//! Not here: the texts themselves (`text`).

use super::attrs::Attrs;
use crate::error::Result;

/// What a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Number,
    Text,
    /// Numbers or texts.
    Any,
}

/// What a column of a transform's answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    Number,
    Text,
    /// Whatever this column of the input is.
    Same(usize),
}

/// The columns of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) takes: Vec<Takes>,
    /// Empty for estimators that only predict.
    pub(crate) gives: Vec<Gives>,
}

impl Flow {
    /// Numbers in, numbers out.
    pub(super) fn numbers(takes: usize, gives: usize) -> Self {
        Self { takes: vec![Takes::Number; takes], gives: vec![Gives::Number; gives] }
    }

    /// Every column as it is.
    pub(super) fn identity(width: usize) -> Self {
        Self { takes: vec![Takes::Any; width], gives: (0..width).map(Gives::Same).collect() }
    }

    pub(crate) fn is_numbers(&self) -> bool {
        self.takes.iter().all(|takes| *takes == Takes::Number)
            && self.gives.iter().all(|gives| *gives != Gives::Text)
    }

    /// Narrows what a column of the input takes.
    pub(super) fn narrow(&mut self, attrs: &Attrs<'_>, column: usize, to: Takes) -> Result<()> {
        let Some(takes) = self.takes.get_mut(column) else {
            return Err(attrs.error(format!("the column {column} does not exist")));
        };
        *takes = match (*takes, to) {
            (known, Takes::Any) => known,
            (Takes::Any, asked) => asked,
            (known, asked) if known == asked => known,
            _ => return Err(attrs.error(format!("the column {column} is used as text and as number"))),
        };
        Ok(())
    }

    /// This step, then `next` on its answers.
    pub(super) fn then(mut self, attrs: &Attrs<'_>, next: &Self) -> Result<Self> {
        for (column, takes) in next.takes.iter().enumerate() {
            match (self.gives.get(column).copied(), takes) {
                (Some(Gives::Same(from)), takes) => self.narrow(attrs, from, *takes)?,
                (Some(Gives::Number), Takes::Text) => {
                    return Err(
                        attrs.error(format!("a step gets numbers in column {column}, expected texts"))
                    );
                }
                (Some(Gives::Text), Takes::Number) => {
                    return Err(
                        attrs.error(format!("a step gets texts in column {column}, expected numbers"))
                    );
                }
                _ => {}
            }
        }
        let gives = next.gives.iter().map(|gives| match gives {
            Gives::Same(from) => self.gives.get(*from).copied().unwrap_or(Gives::Number),
            other => *other,
        });
        Ok(Self { gives: gives.collect(), takes: self.takes })
    }

    /// The whole model: what still could be either is a number, and answers are numbers.
    pub(super) fn settle(mut self, attrs: &Attrs<'_>) -> Result<Self> {
        for gives in &self.gives {
            let is_text = match gives {
                Gives::Text => true,
                Gives::Number => false,
                Gives::Same(from) => self.takes.get(*from) == Some(&Takes::Text),
            };
            if is_text {
                return Err(attrs.unsupported("answers that are texts of the request"));
            }
        }
        self.gives.clear();
        self.takes.iter_mut().filter(|takes| **takes == Takes::Any).for_each(|takes| *takes = Takes::Number);
        Ok(self)
    }
}
