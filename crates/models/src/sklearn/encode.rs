//! Encoders of categories: one-hot, ordinal, by target; numbers and texts.
//!
//! Texts are looked up by hash, so that a column of a million categories costs what one of three does.
//!
//! Not here: labels (`target`), words within texts (`vectorize`).

use std::collections::HashMap;

use super::attrs::{Attrs, WIDTH_MAX};
use super::flow::{Flow, Gives, Takes};
use super::{Evaluated, Read, Role, Rows, Transform};
use crate::array::{Elements, Kind};
use crate::backend::BackendError;
use crate::error::{LoadError, Result};
use crate::graph::{Node, View};
use crate::sketch::{Binary, Drawn, Frame, Op, Sketch, Unary, Wire, undrawn};

/// The categories of one column, in the library's order.
#[derive(Debug, Default)]
pub(super) struct Categories {
    numbers: HashMap<u64, usize>,
    texts: HashMap<Box<str>, usize>,
    /// The place of what is missing, if it is a category.
    pub(super) missing: Option<usize>,
    pub(super) count: usize,
}

/// Equal numbers have equal keys.
fn key(number: f64) -> u64 {
    if number == 0.0 { 0 } else { number.to_bits() }
}

impl Categories {
    /// `None` where a category is neither number nor text.
    pub(super) fn read(view: View<'_>) -> Option<Self> {
        let mut made = Self::default();
        if let Some(array) = view.array()
            && let Elements::Raw(_) = array.elements
        {
            match array.dtype.kind {
                Kind::Text | Kind::Bytes => array.to_texts()?.into_iter().for_each(|text| made.text(&text)),
                _ => array.to_f64s()?.into_iter().for_each(|number| made.number(number)),
            }
            return Some(made);
        }
        for item in view.items()? {
            match (item.node(), item.text(), item.float()) {
                (Node::None, ..) => made.number(f64::NAN),
                (_, Some(text), _) => made.text(text),
                (_, None, Some(number)) => made.number(number),
                _ => return None,
            }
        }
        Some(made)
    }

    fn text(&mut self, text: &str) {
        self.texts.entry(text.into()).or_insert(self.count);
        self.count += 1;
    }

    fn number(&mut self, number: f64) {
        if number.is_nan() {
            self.missing.get_or_insert(self.count);
        } else {
            self.numbers.entry(key(number)).or_insert(self.count);
        }
        self.count += 1;
    }

    pub(super) fn find(&self, rows: Rows<'_>, cell: f64) -> Option<usize> {
        if !cell.is_nan() {
            return self.numbers.get(&key(cell)).copied();
        }
        match rows.text(cell, |text| self.texts.get(text).copied()) {
            Some(found) => found,
            None => self.missing,
        }
    }

    pub(super) fn takes(&self) -> Takes {
        match (self.texts.is_empty(), self.numbers.is_empty()) {
            (false, true) => Takes::Text,
            (true, false) => Takes::Number,
            _ => Takes::Any,
        }
    }

    /// Draws the place of each cell of a column, `[rows, 1]` integers; [`Categories::count`] for what is unknown.
    pub(super) fn draw(&self, sketch: &mut Sketch, (column, is_text): (Wire, bool)) -> Drawn<Wire> {
        if self.takes() == Takes::Any && !(self.texts.is_empty() && self.numbers.is_empty()) {
            return undrawn("an encoder of a column of texts and numbers");
        }
        if is_text {
            let mut known: Vec<(&str, usize)> =
                self.texts.iter().map(|(text, place)| (text.as_ref(), *place)).collect();
            known.sort_by_key(|(_, place)| *place);
            let code = Op::Code(known.iter().map(|(text, _)| (*text).to_owned()).collect());
            let code = sketch.step(code, &[column]);
            if known.len() == self.count {
                return Ok(code);
            }
            // A place among them is for what is missing, which no text is.
            let places = sketch.wholes(known.iter().map(|(_, place)| *place).chain([self.count]));
            return Ok(sketch.pick(places, code, 0));
        }
        let mut known: Vec<(f64, usize)> =
            self.numbers.iter().map(|(bits, place)| (f64::from_bits(*bits), *place)).collect();
        known.sort_by_key(|(_, place)| *place);
        let numbers: Vec<f64> = known.iter().map(|(number, _)| *number).collect();
        let unknown = self.count as f64;
        let mut code = if numbers.is_empty() {
            let missing = sketch.unary(Unary::IsMissing, column);
            let other = sketch.number(unknown);
            sketch.choose(missing, other, other)
        } else {
            let row = sketch.row(&numbers);
            let hits = sketch.binary(Binary::Equal, column, row);
            let hits = sketch.unary(Unary::Number, hits);
            // Places less what is unknown: a row without a hit is then unknown.
            let places: Vec<f64> = known.iter().map(|(_, place)| *place as f64 - unknown).collect();
            let places = sketch.numbers(&[places.len(), 1], places);
            let code = sketch.product(hits, places);
            sketch.plus(code, unknown)
        };
        if let Some(place) = self.missing {
            let is_missing = sketch.unary(Unary::IsMissing, column);
            let place = sketch.number(place as f64);
            code = sketch.choose(is_missing, place, code);
        }
        Ok(sketch.unary(Unary::Whole, code))
    }

    /// Draws what a table says of each cell of a column; its last entry is for what is unknown.
    pub(super) fn draw_said(
        &self,
        sketch: &mut Sketch,
        column: (Wire, bool),
        said: &[f64],
        unknown: f64,
    ) -> Drawn<Wire> {
        let code = self.draw(sketch, column)?;
        let mut all = said.to_vec();
        all.push(unknown);
        let table = sketch.row(&all);
        Ok(sketch.pick(table, code, 0))
    }
}

/// What messages call a cell.
pub(super) fn shown(rows: Rows<'_>, cell: f64) -> String {
    let short = |text: &str| format!("'{}'", text.chars().take(80).collect::<String>());
    rows.text(cell, short).unwrap_or_else(|| cell.to_string())
}

pub(super) fn unknown(rows: Rows<'_>, cell: f64, column: usize) -> BackendError {
    let cell = shown(rows, cell);
    BackendError::Input(format!("Found unknown category {cell} in column {column} during transform"))
}

pub(super) fn categories(attrs: &Attrs<'_>) -> Result<Vec<Categories>> {
    let all: Option<Vec<Categories>> =
        attrs.estimators("categories_")?.into_iter().map(Categories::read).collect();
    let all = all.ok_or_else(|| attrs.unsupported("categories that are neither numbers nor texts"))?;
    if all.len() != attrs.features()? {
        return Err(attrs.error("categories_ has another width than the columns"));
    }
    Ok(all)
}

pub(super) fn flow_of(columns: &[Categories], width: usize) -> Option<Flow> {
    let takes = columns.iter().map(Categories::takes).collect();
    Some(Flow { takes, gives: vec![Gives::Number; width] })
}

/// Where each category goes when rare ones are put together; `None` for a column without rare ones.
type Grouping = Option<Vec<usize>>;

/// `_default_to_infrequent_mappings`, by column.
fn groupings(attrs: &Attrs<'_>, columns: &[Categories]) -> Result<Vec<Grouping>> {
    let Some(all) = attrs.opt("_default_to_infrequent_mappings").and_then(View::items) else {
        return Ok(columns.iter().map(|_| None).collect());
    };
    let wrong = || attrs.error("_default_to_infrequent_mappings does not fit the categories");
    if all.len() != columns.len() {
        return Err(wrong());
    }
    let one = |(view, column): (&View<'_>, &Categories)| {
        if view.is_none() {
            return Ok(None);
        }
        let places = view.floats().ok_or_else(wrong)?;
        let places: Vec<usize> = places.into_iter().map(|place| place as usize).collect();
        // What is missing has no place of its own.
        let fits = places.len() <= column.count && places.iter().all(|place| *place < column.count);
        if fits { Ok(Some(places)) } else { Err(wrong()) }
    };
    all.iter().zip(columns).map(one).collect()
}

/// What one-hot encoding does with one column.
struct Hot {
    categories: Categories,
    /// The output of each category; `None` where it is dropped.
    slots: Vec<Option<usize>>,
    /// The output of what is unknown.
    unknown: Option<usize>,
}

struct OneHot {
    columns: Vec<Hot>,
    width: usize,
    refuses_unknown: bool,
}

impl Transform for OneHot {
    fn width_out(&self) -> usize {
        self.width
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.width.max(1))) {
            for (index, (cell, column)) in row.iter().zip(&self.columns).enumerate() {
                let slot = match column.categories.find(rows, *cell) {
                    Some(code) => column.slots[code],
                    None if self.refuses_unknown => return Err(unknown(rows, *cell, index)),
                    None => column.unknown,
                };
                if let Some(slot) = slot {
                    out[slot] = 1.0;
                }
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut tables = Vec::new();
        let mut first = 0;
        for (index, hot) in self.columns.iter().enumerate() {
            let slots = hot.slots.iter().copied().flatten().max().map_or(first, |last| last + 1);
            let slots = slots.max(hot.unknown.map_or(first, |slot| slot + 1));
            if slots == first {
                continue;
            }
            let column = rows.column(sketch, index);
            let slot = |slot: &Option<usize>| slot.map_or(-1.0, |slot| (slot - first) as f64);
            let said: Vec<f64> = hot.slots.iter().map(slot).collect();
            let place = hot.categories.draw_said(sketch, column, &said, slot(&hot.unknown))?;
            let place = sketch.unary(Unary::Whole, place);
            tables.push(sketch.one_hot(place, slots - first));
            first = slots;
        }
        if first != self.width || tables.is_empty() {
            return undrawn("OneHotEncoder without any category left");
        }
        Ok(Frame::Numbers(sketch.join(&tables), self.width))
    }
}

/// The category that each column leaves out.
fn dropped(attrs: &Attrs<'_>) -> Result<Vec<Option<usize>>> {
    let Some(drop) = attrs.opt("_drop_idx_after_grouping").or(attrs.opt("drop_idx_")) else {
        return Ok(Vec::new());
    };
    match (drop.items(), drop.floats()) {
        (Some(items), _) => {
            Ok(items.iter().map(|item| item.int().and_then(|int| usize::try_from(int).ok())).collect())
        }
        (None, Some(floats)) => Ok(floats.iter().map(|float| Some(*float as usize)).collect()),
        (None, None) => Err(attrs.error("drop_idx_ holds no indices")),
    }
}

pub(super) fn one_hot(attrs: &Attrs<'_>) -> Result<Read> {
    let (refuses_unknown, to_rare) = match attrs.text("handle_unknown")? {
        "error" => (true, false),
        "ignore" => (false, false),
        "infrequent_if_exist" | "warn" => (false, true),
        other => return Err(attrs.unsupported(&format!("handle_unknown={other:?}"))),
    };
    let all = categories(attrs)?;
    let (groupings, dropped) = (groupings(attrs, &all)?, dropped(attrs)?);
    let flow = flow_of(&all, 0);
    let mut width = 0;
    let mut columns = Vec::new();
    for (index, (categories, grouping)) in all.into_iter().zip(groupings).enumerate() {
        let place =
            |code: usize| grouping.as_ref().and_then(|places| places.get(code)).copied().unwrap_or(code);
        let groups = (0..categories.count).map(place).max().map_or(0, |last| last + 1);
        let left_out = dropped.get(index).copied().flatten();
        let mut next = 0;
        let group_slots: Vec<Option<usize>> = (0..groups)
            .map(|group| {
                let kept = (left_out != Some(group)).then_some(width + next);
                next += usize::from(kept.is_some());
                kept
            })
            .collect();
        width += next;
        if width > WIDTH_MAX {
            return Err(LoadError::TooLarge { what: "columns of one-hot codes", limit: WIDTH_MAX });
        }
        let slots = (0..categories.count).map(|code| group_slots[place(code)]).collect();
        // Rare categories are the last group.
        let unknown =
            if to_rare && grouping.is_some() { group_slots.last().copied().flatten() } else { None };
        columns.push(Hot { categories, slots, unknown });
    }
    let detail = format!("{} columns to {width}", columns.len());
    let cost = columns.len() as u64 * 20 + width as u64;
    let role = Role::Transformer(Box::new(OneHot { columns, width, refuses_unknown }));
    let mut made = Read::new(role, detail, cost);
    made.flow = flow.map(|flow| Flow { gives: vec![Gives::Number; width], ..flow });
    Ok(made)
}

struct Ordinal {
    columns: Vec<(Categories, Vec<f64>)>,
    /// What is unknown becomes this; an error if `None`.
    unknown: Option<f64>,
}

impl Transform for Ordinal {
    fn width_out(&self) -> usize {
        self.columns.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.columns.len().max(1))) {
            for (index, (cell, (categories, codes))) in row.iter().zip(&self.columns).enumerate() {
                out[index] = match (categories.find(rows, *cell), self.unknown) {
                    (Some(code), _) => codes[code],
                    (None, Some(unknown)) => unknown,
                    (None, None) => return Err(unknown(rows, *cell, index)),
                };
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut tables = Vec::new();
        for (index, (categories, codes)) in self.columns.iter().enumerate() {
            let column = rows.column(sketch, index);
            let unknown = self.unknown.unwrap_or(f64::NAN);
            tables.push(categories.draw_said(sketch, column, codes, unknown)?);
        }
        Ok(Frame::Numbers(sketch.join(&tables), self.columns.len()))
    }
}

pub(super) fn ordinal(attrs: &Attrs<'_>) -> Result<Read> {
    let unknown = match attrs.text("handle_unknown")? {
        "use_encoded_value" => Some(attrs.float("unknown_value")?),
        "error" => None,
        other => return Err(attrs.unsupported(&format!("handle_unknown={other:?}"))),
    };
    let missing = attrs.opt("encoded_missing_value").and_then(View::float).unwrap_or(f64::NAN);
    let all = categories(attrs)?;
    let groupings = groupings(attrs, &all)?;
    let width = all.len();
    let flow = flow_of(&all, width);
    let column = |(categories, grouping): (Categories, Grouping)| {
        let code = |code: usize| {
            let place = grouping.as_ref().and_then(|places| places.get(code)).copied().unwrap_or(code);
            if categories.missing == Some(code) { missing } else { place as f64 }
        };
        let codes = (0..categories.count).map(code).collect();
        (categories, codes)
    };
    let columns = all.into_iter().zip(groupings).map(column).collect();
    let role = Role::Transformer(Box::new(Ordinal { columns, unknown }));
    let mut made = Read::new(role, format!("{width} columns"), width as u64 * 20);
    made.flow = flow;
    Ok(made)
}

/// Means of the target by category; several for each column where the target has several classes.
struct ByTarget {
    columns: Vec<Categories>,
    /// `columns × classes` lists.
    means: Vec<Vec<f64>>,
    /// For what is unknown.
    overall: Vec<f64>,
}

impl Transform for ByTarget {
    fn width_out(&self) -> usize {
        self.means.len()
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let classes = self.overall.len();
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.means.len().max(1))) {
            for (index, (cell, column)) in row.iter().zip(&self.columns).enumerate() {
                let found = column.find(rows, *cell);
                for class in 0..classes {
                    let place = index * classes + class;
                    out[place] = found.map_or(self.overall[class], |code| self.means[place][code]);
                }
            }
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut tables = Vec::new();
        let classes = self.overall.len();
        for (index, categories) in self.columns.iter().enumerate() {
            let column = rows.column(sketch, index);
            for (class, overall) in self.overall.iter().enumerate() {
                let means = &self.means[index * classes + class];
                tables.push(categories.draw_said(sketch, column, means, *overall)?);
            }
        }
        Ok(Frame::Numbers(sketch.join(&tables), self.means.len()))
    }
}

pub(super) fn target(attrs: &Attrs<'_>) -> Result<Read> {
    let columns = categories(attrs)?;
    let overall = attrs.floats("target_mean_")?;
    let means: Option<Vec<Vec<f64>>> =
        attrs.estimators("encodings_")?.into_iter().map(View::floats).collect();
    let means = means.ok_or_else(|| attrs.error("encodings_ holds no numbers"))?;
    let classes = overall.len();
    let is_whole = classes > 0 && means.len() == columns.len() * classes;
    let fits = is_whole
        && means.iter().enumerate().all(|(index, means)| means.len() == columns[index / classes].count);
    if !fits {
        return Err(attrs.error("encodings_ does not fit the categories"));
    }
    let detail = format!("{} columns to {}", columns.len(), means.len());
    let cost = columns.len() as u64 * 20;
    let flow = flow_of(&columns, means.len());
    let role = Role::Transformer(Box::new(ByTarget { columns, means, overall }));
    let mut made = Read::new(role, detail, cost);
    made.flow = flow;
    Ok(made)
}
