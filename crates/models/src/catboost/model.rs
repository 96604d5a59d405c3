//! A model compiled for answering.
//!
//! Every test of the library is `value > border` on a column of its own making: numbers in 32 bits, a one for a
//! category that is there, statistics. Rows are turned into such columns, and all trees (oblivious ones too) are
//! trees of the common table.
//!
//! Not here: files (`json`, `cbm`), wrappers (`wrapper`).

use super::compile::{self, Category, Piece};
use super::ctr::{Ctr, Table};
use super::hash;
use super::link::Link;
use super::parts::{Parts, error};
use crate::backend::BackendError;
use crate::booster::{Boost, Read, shape};
use crate::error::Result;
use crate::sketch::{Binary, Classes, Drawn, Frame, Kind, Output, Sketch, Unary, Wire, labelled, undrawn};
use crate::sklearn::flow::{Flow, Takes};
use crate::sklearn::native::Method;
use crate::sklearn::{Classify, Evaluated, Labels, Regress, Rows, argmax};
use crate::tensor::{DType, Outputs};
use crate::trees::Forest;

/// A column of numbers: its place in the row, and what a missing value becomes.
struct Number {
    column: usize,
    missing: f32,
}

/// A model.
pub(super) struct Model {
    numbers: Vec<Number>,
    categories: Vec<Category>,
    combinations: Vec<Vec<Piece>>,
    /// Each statistic with the place of its combination and of its column.
    ctrs: Vec<(Ctr, usize, usize)>,
    tables: Vec<Table>,
    forest: Forest<f32>,
    values: Vec<f64>,
    dimension: usize,
    scale: f64,
    bias: Vec<f64>,
    width: usize,
    pub(super) link: Link,
    labels: Option<Labels>,
    features: usize,
    names: Vec<String>,
    detail: String,
}

impl Model {
    pub(super) fn new(parts: Parts) -> Result<Self> {
        compile::check(&parts)?;
        let link = Link::of(&parts.loss)?;
        let splits = parts.splits();
        let mut categories = compile::categories(&parts)?;
        let columns = compile::columns(&parts, &splits, &mut categories)?;
        let (combinations, places) = compile::combinations(&parts)?;
        let mut forest = Forest::new(columns.width);
        for (index, tree) in parts.trees.iter().enumerate() {
            compile::add(&mut forest, tree, &parts, &columns)
                .map_err(|what| error(format!("tree {index}: {what}")))?;
        }
        forest.finish();
        let bias = match parts.bias.as_slice() {
            [one] => vec![*one; parts.dimension],
            all if all.len() == parts.dimension => all.to_vec(),
            all => return Err(error(format!("{} biases for {} scores", all.len(), parts.dimension))),
        };
        let labels = compile::labels(&parts, link)?;
        if link == Link::Uncertain && parts.dimension != 2 {
            return Err(error(format!("{} with {} scores", parts.loss, parts.dimension)));
        }
        let loss = if parts.loss.is_empty() { "no loss" } else { &parts.loss };
        let counts = (forest.count(), forest.nodes(), parts.ctrs.len());
        let mut detail = format!("{loss}, {} trees, {} nodes", counts.0, counts.1);
        if counts.2 > 0 {
            detail += &format!(", {} statistics of categories", counts.2);
        }
        detail += &format!(", {}", parts.form);
        let all =
            parts.floats.iter().map(|float| float.column).chain(parts.cats.iter().map(|cat| cat.column));
        let features = all.max().map_or(0, |last| last + 1);
        let first_ctr = columns.width - parts.ctrs.len();
        let ctrs = parts.ctrs.into_iter().zip(places).enumerate();
        let missing = |right: bool| if right { f32::INFINITY } else { f32::NEG_INFINITY };
        let number = |float: &super::parts::Float| Number {
            column: float.column,
            missing: missing(float.missing_right),
        };
        Ok(Self {
            numbers: parts.floats.iter().map(number).collect(),
            ctrs: ctrs.map(|(index, (ctr, place))| (ctr, place, first_ctr + index)).collect(),
            categories,
            combinations,
            tables: parts.tables,
            forest,
            values: parts.values,
            dimension: parts.dimension,
            scale: parts.scale,
            bias,
            width: columns.width,
            link,
            labels,
            names: compile::names(&parts.names, features),
            features,
            detail,
        })
    }

    pub(super) fn read(self) -> Read {
        Read {
            features: self.features,
            feature_names: self.names.clone(),
            class: "catboost.CatBoost",
            detail: self.detail.clone(),
            row_cost_ns: self.row_cost_ns(),
            flow: self.flow(),
            model: Box::new(self),
        }
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn columns(&self) -> (usize, Vec<String>) {
        (self.features, self.names.clone())
    }

    pub(super) fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    pub(super) fn row_cost_ns(&self) -> u64 {
        let features = self.width + 20 * self.categories.len() + 30 * self.ctrs.len();
        self.forest.row_cost_ns() + features as u64
    }

    /// Its columns, where some are texts.
    pub(super) fn flow(&self) -> Option<Flow> {
        let mut flow = Flow { takes: vec![Takes::Number; self.features], gives: Vec::new() };
        for category in self.categories.iter().filter(|category| category.is_text) {
            flow.takes[category.column] = Takes::Text;
        }
        (!flow.is_numbers()).then_some(flow)
    }

    /// Turns a row into the columns that the tests look at.
    fn fill(&self, rows: Rows<'_>, row: &[f64], hashes: &mut [i32], out: &mut [f32]) -> Evaluated {
        out.fill(0.0);
        for (slot, number) in out.iter_mut().zip(&self.numbers) {
            let value = row[number.column] as f32;
            *slot = if value.is_nan() { number.missing } else { value };
        }
        for (hash, category) in hashes.iter_mut().zip(&self.categories) {
            if !category.is_used {
                continue;
            }
            *hash = hash_of(rows, row[category.column], category.column)?;
            if let Some(column) = category.ones.get(hash) {
                out[*column] = 1.0;
            }
        }
        let mut last = (usize::MAX, 0);
        for (ctr, combination, column) in &self.ctrs {
            if last.0 != *combination {
                last = (*combination, combine(&self.combinations[*combination], hashes, out));
            }
            out[*column] = ctr.of(&self.tables[ctr.table], last.1);
        }
        Ok(())
    }

    /// Each row's scores: `rows × dimension`.
    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        out.fill(0.0);
        let dimension = self.dimension;
        let mut hashes = vec![0; self.categories.len()];
        let fill = |row: usize, cells: &mut [f32]| {
            self.fill(rows, &rows.data[row * rows.width..(row + 1) * rows.width], &mut hashes, cells)
        };
        if dimension == 1 {
            self.forest.add_up::<1, _, _>(
                rows.count,
                fill,
                self.values.as_chunks().0,
                out.as_chunks_mut().0,
            )?;
        } else {
            self.forest.walk(rows.count, fill, |row, _, leaf| {
                let out = &mut out[row * dimension..][..dimension];
                let values = &self.values[leaf as usize..][..dimension];
                out.iter_mut().zip(values).for_each(|(slot, value)| *slot += value);
            })?;
        }
        for row in out.chunks_exact_mut(dimension) {
            row.iter_mut().zip(&self.bias).for_each(|(score, bias)| *score = self.scale * *score + bias);
        }
        Ok(())
    }

    fn predict_numbers(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.scores(rows, out)?;
        out.chunks_exact_mut(self.dimension).for_each(|row| self.link.predict(row));
        Ok(())
    }

    fn picks(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        let mut scores = vec![0.0; rows.count * self.dimension];
        self.scores(rows, &mut scores)?;
        for (pick, scores) in picks.iter_mut().zip(scores.chunks_exact(self.dimension)) {
            *pick = if self.link == Link::Binary { u32::from(scores[0] > 0.0) } else { argmax(scores) };
        }
        Ok(())
    }

    fn probabilities_into(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        if self.link != Link::Binary {
            self.scores(rows, out)?;
            out.chunks_exact_mut(self.dimension).for_each(|row| self.link.probabilities(row));
            return Ok(());
        }
        let mut scores = vec![0.0; rows.count];
        self.scores(rows, &mut scores)?;
        self.link.probabilities(&mut scores);
        for (pair, one) in out.chunks_exact_mut(2).zip(scores) {
            pair.copy_from_slice(&[1.0 - one, one]);
        }
        Ok(())
    }

    fn classes_count(&self) -> usize {
        if self.link == Link::Binary { 2 } else { self.dimension }
    }

    /// Answers of yes and no, as the library's integers.
    fn answer_labels(&self, rows: Rows<'_>, out: &mut [i64]) -> Evaluated {
        let mut scores = vec![0.0; rows.count * self.dimension];
        self.scores(rows, &mut scores)?;
        out.iter_mut().zip(scores).for_each(|(slot, score)| *slot = i64::from(score > 0.0));
        Ok(())
    }
}

impl Model {
    fn draw_scores(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        if self.categories.iter().any(|category| category.is_used) || !self.ctrs.is_empty() {
            return undrawn("catboost.CatBoost with columns of categories, which it hashes");
        }
        let columns: Vec<usize> = self.numbers.iter().map(|number| number.column).collect();
        let table = rows.select(sketch, &columns).table(sketch)?;
        let table = sketch.unary(Unary::Single, table);
        let fills: Vec<f64> = self.numbers.iter().map(|number| f64::from(number.missing)).collect();
        let (missing, fills) = (sketch.unary(Unary::IsMissing, table), sketch.row(&fills));
        let table = sketch.choose(missing, fills, table);
        let dimension = self.dimension;
        let plain = self.forest.plain();
        let sums = if dimension == 1 {
            plain.sums(sketch, table, 1, |_| 0, |_, leaf| self.values[leaf as usize])?
        } else {
            plain.vectors(sketch, table, dimension, |_, leaf, out| {
                out.extend_from_slice(&self.values[leaf as usize..][..dimension]);
            })?
        };
        let (scaled, bias) = (sketch.scaled(sums, self.scale), sketch.row(&self.bias));
        Ok(sketch.add(scaled, bias))
    }

    fn draw_prediction(&self, sketch: &mut Sketch, scores: Wire) -> Wire {
        match self.link {
            Link::Exp => sketch.unary(Unary::Exp, scores),
            Link::Uncertain => {
                let (mean, spread) = (sketch.column(scores, 0), sketch.column(scores, 1));
                let doubled = sketch.scaled(spread, 2.0);
                let variance = sketch.unary(Unary::Exp, doubled);
                sketch.join(&[mean, variance])
            }
            _ => scores,
        }
    }

    fn draw_classes(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        let scores = self.draw_scores(sketch, rows)?;
        let (picks, shares) = match self.link {
            Link::Binary => {
                let share = sketch.unary(Unary::Sigmoid, scores);
                (sketch.second_above(scores, 0.0), sketch.pair(share))
            }
            Link::Softmax => (sketch.argmax(scores), sketch.softmax(scores)),
            _ => (sketch.argmax(scores), sketch.unary(Unary::Sigmoid, scores)),
        };
        Ok(Classes { picks, shares: Some(shares), decisions: None })
    }
}

/// The library takes integers and texts.
fn hash_of(rows: Rows<'_>, cell: f64, column: usize) -> Evaluated<i32> {
    if let Some(hash) = rows.text(cell, hash::category) {
        return Ok(hash);
    }
    if cell.fract() != 0.0 || cell.abs() > 9e15 || cell.is_nan() {
        let what = "a category is a text or an integer; missing ones are texts too";
        return Err(BackendError::Input(format!("column {column}: {what}, got {cell}")));
    }
    Ok(hash::category(&(cell as i64).to_string()))
}

fn combine(links: &[Piece], hashes: &[i32], columns: &[f32]) -> u64 {
    links.iter().fold(0, |hash, link| match link {
        Piece::Cat(place) => hash::chain_category(hash, hashes[*place]),
        Piece::Above(place, border) => hash::chain(hash, u64::from(columns[*place] > *border)),
        Piece::Is(place, value) => hash::chain(hash, u64::from(hashes[*place] == *value)),
    })
}

impl Boost for Model {
    fn output(&self, method: Method) -> Option<(DType, Vec<usize>)> {
        let flat = if self.dimension == 1 { Vec::new() } else { vec![self.dimension] };
        match (method, &self.labels) {
            // The library answers one class a row as a column.
            (Method::Predict, Some(labels)) if self.link != Link::Binary => Some((labels.dtype(), vec![1])),
            (Method::Predict, Some(labels)) => Some((labels.dtype(), Vec::new())),
            (Method::Predict, None) if self.link == Link::Labels => Some((DType::I64, flat)),
            (Method::Predict | Method::Decisions, _) => Some((DType::F64, flat)),
            (Method::Probabilities, Some(_)) => Some((DType::F64, vec![self.classes_count()])),
            (Method::Probabilities, None) => (self.link == Link::Labels).then_some((DType::F64, flat)),
        }
    }

    fn answer(&self, rows: Rows<'_>, method: Method, outputs: &mut Outputs) -> Evaluated {
        let Some((_, dims)) = self.output(method) else {
            return Err(BackendError::Internal("this model has no probabilities".into()));
        };
        let shape = shape(rows.count, &dims)?;
        match (method, &self.labels) {
            (Method::Predict, Some(labels)) => {
                let mut picks = vec![0; rows.count];
                self.picks(rows, &mut picks)?;
                labels.write(&picks, shape, outputs);
                Ok(())
            }
            (Method::Predict, None) if self.link == Link::Labels => {
                self.answer_labels(rows, outputs.numbers(shape))
            }
            (Method::Predict, None) => self.predict_numbers(rows, outputs.numbers(shape)),
            (Method::Decisions, _) => self.scores(rows, outputs.numbers(shape)),
            (Method::Probabilities, _) => self.probabilities_into(rows, outputs.numbers(shape)),
        }
    }

    fn classes(&self) -> Vec<String> {
        self.labels.as_ref().map(Labels::to_texts).unwrap_or_default()
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Vec<Output>> {
        let output = |name: &str, kind, row, wire| Output { name: name.to_owned(), kind, row, wire };
        if let Some(labels) = &self.labels {
            let drawn = self.draw_classes(sketch, rows)?;
            let (label, kind) = labelled(sketch, drawn.picks, labels);
            let mut outputs = vec![output("label", kind, Vec::new(), label)];
            let width = vec![self.classes_count()];
            outputs.extend(drawn.shares.map(|wire| output("probabilities", Kind::Number, width, wire)));
            return Ok(outputs);
        }
        let scores = self.draw_scores(sketch, rows)?;
        if self.link == Link::Labels {
            let above = sketch.test(Binary::Greater, scores, 0.0);
            let (label, shares) = (sketch.unary(Unary::Whole, above), sketch.unary(Unary::Sigmoid, scores));
            let width = vec![self.dimension];
            return Ok(vec![
                output("label", Kind::Whole, width.clone(), label),
                output("probabilities", Kind::Number, width, shares),
            ]);
        }
        let prediction = self.draw_prediction(sketch, scores);
        Ok(vec![output("variable", Kind::Number, vec![self.dimension], prediction)])
    }
}

impl Classify for Model {
    fn classes(&self) -> usize {
        self.classes_count()
    }

    fn pick(&self, rows: Rows<'_>, picks: &mut [u32]) -> Evaluated {
        self.picks(rows, picks)
    }

    fn has_probabilities(&self) -> bool {
        true
    }

    fn probabilities(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.probabilities_into(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Classes> {
        self.draw_classes(sketch, rows)
    }
}

impl Regress for Model {
    fn targets(&self) -> usize {
        self.dimension
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        self.predict_numbers(rows, out)
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let scores = self.draw_scores(sketch, rows)?;
        Ok(self.draw_prediction(sketch, scores))
    }
}
