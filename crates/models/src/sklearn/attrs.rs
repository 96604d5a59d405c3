//! Access to an estimator's attributes with messages that name class and attribute.
//!
//! Not here: what the attributes mean.

use crate::error::{LoadError, Result};
use crate::graph::View;

/// The most columns, classes or targets a model may have: beyond it, counts are not sizes but attacks.
pub(super) const WIDTH_MAX: usize = 1 << 24;

pub(super) struct Attrs<'g> {
    pub(super) view: View<'g>,
    pub(super) class: String,
}

/// A matrix of numbers in C order.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) data: Vec<f64>,
}

impl Matrix {
    pub(super) fn row(&self, index: usize) -> &[f64] {
        &self.data[index * self.cols..(index + 1) * self.cols]
    }
}

impl<'g> Attrs<'g> {
    pub(super) fn new(view: View<'g>) -> Result<Self> {
        let class = view.class_name();
        match view.object() {
            Some(_) => Ok(Self { view, class }),
            None => Err(LoadError::unsupported(format!("the file holds a {class}, not an estimator"))),
        }
    }

    pub(super) fn error(&self, what: impl Into<String>) -> LoadError {
        LoadError::attribute(self.class.clone(), what)
    }

    pub(super) fn unsupported(&self, what: &str) -> LoadError {
        LoadError::unsupported(format!("{} with {what}", self.class))
    }

    /// An attribute that is there and not `None`.
    pub(super) fn opt(&self, name: &str) -> Option<View<'g>> {
        self.view.attr(name).filter(|value| !value.is_none())
    }

    pub(super) fn req(&self, name: &str) -> Result<View<'g>> {
        let why = || self.error(format!("the attribute {name} is missing; is the estimator fitted?"));
        self.opt(name).ok_or_else(why)
    }

    fn wrong(&self, name: &str, value: View<'_>, expected: &str) -> LoadError {
        self.error(format!("the attribute {name} is a {}, expected {expected}", value.class_name()))
    }

    pub(super) fn int(&self, name: &str) -> Result<i64> {
        let value = self.req(name)?;
        value.int().ok_or_else(|| self.wrong(name, value, "an integer"))
    }

    pub(super) fn size(&self, name: &str) -> Result<usize> {
        let int = self.int(name)?;
        let size = usize::try_from(int).ok().filter(|size| *size <= WIDTH_MAX);
        size.ok_or_else(|| self.error(format!("{name} is {int}, expected 0 to {WIDTH_MAX}")))
    }

    pub(super) fn float(&self, name: &str) -> Result<f64> {
        let value = self.req(name)?;
        value.float().ok_or_else(|| self.wrong(name, value, "a number"))
    }

    pub(super) fn truth_or(&self, name: &str, default: bool) -> bool {
        self.opt(name).and_then(View::truth).unwrap_or(default)
    }

    pub(super) fn text(&self, name: &str) -> Result<&'g str> {
        let value = self.req(name)?;
        value.text().ok_or_else(|| self.wrong(name, value, "a text"))
    }

    pub(super) fn floats(&self, name: &str) -> Result<Vec<f64>> {
        let value = self.req(name)?;
        value.floats().ok_or_else(|| self.wrong(name, value, "numbers"))
    }

    /// One number for each of `count` columns.
    pub(super) fn column_floats(&self, name: &str, count: usize) -> Result<Vec<f64>> {
        let floats = self.floats(name)?;
        if floats.len() != count {
            return Err(self.error(format!("{name} has {} elements, expected {count}", floats.len())));
        }
        Ok(floats)
    }

    /// An array of one or two dimensions; one dimension is one row.
    pub(super) fn matrix(&self, name: &str) -> Result<Matrix> {
        let value = self.req(name)?;
        let array = value.array().ok_or_else(|| self.wrong(name, value, "an array"))?;
        let data = array.to_f64s().ok_or_else(|| self.wrong(name, value, "an array of numbers"))?;
        let (rows, cols) = match array.shape.as_slice() {
            [] => (1, 1),
            [cols] => (1, *cols),
            [rows, cols] => (*rows, *cols),
            shape => {
                return Err(self.error(format!("{name} has the shape {shape:?}, expected two dimensions")));
            }
        };
        if rows * cols != data.len() {
            return Err(self.error(format!("{name} does not have the size of its shape")));
        }
        Ok(Matrix { rows, cols, data })
    }

    pub(super) fn estimators(&self, name: &str) -> Result<Vec<View<'g>>> {
        let value = self.req(name)?;
        value.items().ok_or_else(|| self.wrong(name, value, "a list of estimators"))
    }

    /// How many columns it was fitted on. scikit-learn before 0.24 called it `n_features_`.
    pub(super) fn features(&self) -> Result<usize> {
        for name in ["n_features_in_", "n_features_", "_n_features"] {
            if self.opt(name).is_some() {
                return self.size(name);
            }
        }
        Err(self.error("the attribute n_features_in_ is missing; is the estimator fitted?"))
    }

    /// Whether it was written by this version or a later one; without a version, the newest is assumed.
    pub(super) fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let Some(version) = self.version() else { return true };
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
    }

    pub(super) fn version(&self) -> Option<String> {
        self.opt("_sklearn_version").and_then(View::text).map(str::to_owned)
    }
}
