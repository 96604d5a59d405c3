//! Transforms side by side: `FeatureUnion` and `ColumnTransformer`.
//!
//! Columns are asked for by place, by name, by a mask or by a slice, as the library remembers them.
//!
//! Not here: the transforms themselves.

use super::attrs::Attrs;
use super::flow::{Flow, Gives};
use super::{Estimator, Evaluated, Part, Read, Role, Rows, Transform, read_at};
use crate::array::Kind;
use crate::error::Result;
use crate::graph::View;
use crate::sketch::{Drawn, Frame, Sketch};

/// A transform (none: the columns as they are), its columns, and what its outputs are multiplied by.
type Beside = (Option<Box<dyn Transform>>, Vec<usize>, f64);

/// Transforms side by side, each on its columns.
#[derive(Default)]
struct SideBySide {
    parts: Vec<Beside>,
    width: usize,
}

/// What is being put together.
struct Building {
    all: SideBySide,
    flow: Flow,
    inner: Vec<Part>,
    cost: u64,
    width_max: usize,
}

impl Building {
    fn new(features: usize) -> Self {
        let mut flow = Flow::identity(features);
        flow.gives.clear();
        Self { all: SideBySide::default(), flow, inner: Vec::new(), cost: 0, width_max: 0 }
    }

    /// Columns as they are.
    fn pass(&mut self, columns: Vec<usize>) {
        self.flow.gives.extend(columns.iter().map(|column| Gives::Same(*column)));
        self.all.width += columns.len();
        self.all.parts.push((None, columns, 1.0));
    }

    /// One part.
    fn push(
        &mut self,
        attrs: &Attrs<'_>,
        name: &str,
        estimator: Estimator,
        columns: Vec<usize>,
        weight: f64,
    ) -> Result<()> {
        let flow = estimator.flow();
        let (features, class) = (estimator.features, estimator.class);
        let ((Role::Transformer(transform), _) | (_, Some(transform))) = (estimator.role, estimator.inner)
        else {
            return Err(attrs.error(format!("{class} among transformers")));
        };
        if features != columns.len() {
            return Err(attrs.error(format!("{name} takes {features} columns and gets {}", columns.len())));
        }
        for (column, takes) in columns.iter().zip(&flow.takes) {
            self.flow.narrow(attrs, *column, *takes)?;
        }
        self.flow.gives.extend(flow.gives.iter().map(|gives| match gives {
            Gives::Same(from) => Gives::Same(columns[*from]),
            other => *other,
        }));
        self.cost += estimator.row_cost_ns;
        self.width_max = self.width_max.max(estimator.width_max);
        self.all.width += transform.width_out();
        self.all.parts.push((Some(transform), columns, weight));
        let mut parts = estimator.parts;
        if let Some(part) = parts.first_mut() {
            part.step = Some(name.to_owned());
        }
        self.inner.append(&mut parts);
        Ok(())
    }

    fn finish(self, features: usize) -> Read {
        let detail = format!("{} parts, {features} columns to {}", self.all.parts.len(), self.all.width);
        let mut made = Read::new(Role::Transformer(Box::new(self.all)), detail, self.cost);
        made.inner = self.inner;
        made.features = Some(features);
        made.flow = Some(self.flow);
        made.width_max = self.width_max;
        made
    }
}

impl Transform for SideBySide {
    fn width_out(&self) -> usize {
        self.width
    }

    fn transform(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        let mut start = 0;
        for (transform, columns, weight) in &self.parts {
            let picked: Vec<f64> =
                rows.iter().flat_map(|row| columns.iter().map(|column| row[*column])).collect();
            let part = match transform {
                None => picked,
                Some(transform) => {
                    let mut part = vec![0.0; rows.count * transform.width_out()];
                    transform.transform(rows.with(&picked, columns.len()), &mut part)?;
                    part
                }
            };
            let width = transform.as_ref().map_or(columns.len(), |transform| transform.width_out());
            for row in 0..rows.count {
                for (slot, value) in
                    out[row * self.width + start..].iter_mut().zip(&part[row * width..(row + 1) * width])
                {
                    // A text times one is no text any more.
                    *slot = if *weight == 1.0 { *value } else { value * weight };
                }
            }
            start += width;
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Frame> {
        let mut frames = Vec::new();
        for (transform, columns, weight) in &self.parts {
            if columns.is_empty() && transform.is_none() {
                continue;
            }
            let picked = rows.select(sketch, columns);
            let mut made = match transform {
                None => picked,
                Some(transform) => transform.draw(sketch, &picked)?,
            };
            if *weight != 1.0 {
                let table = made.table(sketch)?;
                made = Frame::Numbers(sketch.scaled(table, *weight), made.width());
            }
            frames.push(made);
        }
        Ok(Frame::join(sketch, &frames))
    }
}

pub(super) fn union(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let mut building: Option<Building> = None;
    let mut waiting = 0;
    for step in attrs.estimators("transformer_list")? {
        let pair = step.items().unwrap_or_default();
        let [name, member, ..] = pair.as_slice() else { return Err(attrs.error("a part is not a pair")) };
        let name = name.text().unwrap_or_default();
        match member.text() {
            Some("drop") => continue,
            Some("passthrough") => {
                match &mut building {
                    Some(building) => building.pass((0..building.flow.takes.len()).collect()),
                    None => waiting += 1,
                }
                continue;
            }
            _ => {}
        }
        let weights = attrs.opt("transformer_weights");
        let weight = weights.and_then(|weights| weights.entry(name)).and_then(View::float).unwrap_or(1.0);
        let estimator = read_at(*member, depth + 1)?;
        let building = building.get_or_insert_with(|| Building::new(estimator.features));
        let width = building.flow.takes.len();
        // Parts that came before the first one whose width is known.
        (0..std::mem::take(&mut waiting)).for_each(|_| building.pass((0..width).collect()));
        building.push(attrs, name, estimator, (0..width).collect(), weight)?;
    }
    let building = building.ok_or_else(|| attrs.error("it has no parts"))?;
    let features = building.flow.takes.len();
    Ok(building.finish(features))
}

/// The values of a pickled pandas `Index`.
fn index_data(spec: View<'_>) -> Option<View<'_>> {
    let is_index = spec.object().is_some_and(|object| &*object.class.name == "_new_Index");
    is_index.then(|| spec.args()?.get(1)?.entry("data")).flatten()
}

/// The indices that a column specification means.
fn indices(attrs: &Attrs<'_>, spec: View<'_>, names: &[String], features: usize) -> Result<Vec<usize>> {
    // The list of the remainder's columns is wrapped by 1.5 and later, a pandas `Index` carries its values.
    let spec = spec.attr("data").or_else(|| index_data(spec)).unwrap_or(spec);
    let by_name = |name: &str| names.iter().position(|one| one == name);
    let unknown = || attrs.unsupported(&format!("columns given as {}", spec.class_name()));
    let found: Option<Vec<usize>> = if let Some(name) = spec.text() {
        by_name(name).map(|index| vec![index])
    } else if let Some(texts) = spec.texts().filter(|texts| !texts.is_empty()) {
        texts.iter().map(|name| by_name(name)).collect()
    } else if let Some(items) = spec.items().filter(|items| items.iter().any(|item| item.int().is_none())) {
        return Err(attrs.unsupported(&format!("columns given as a list of {}", items[0].class_name())));
    } else if spec.array().is_some_and(|array| array.dtype.kind == Kind::Bool) {
        let mask = spec.floats().ok_or_else(unknown)?;
        Some((0..mask.len()).filter(|index| mask[*index] != 0.0).collect())
    } else if spec.object().is_some_and(|object| &*object.class.name == "slice") {
        Some(slice(spec, names, features).ok_or_else(unknown)?)
    } else {
        let floats = spec.floats().ok_or_else(unknown)?;
        let count = features as f64;
        Some(
            floats
                .into_iter()
                .map(|index| (if index < 0.0 { index + count } else { index }) as usize)
                .collect(),
        )
    };
    let found = found.ok_or_else(|| attrs.error("a column's name is not among feature_names_in_"))?;
    match found.iter().find(|index| **index >= features) {
        Some(index) => Err(attrs.error(format!("the column {index} does not exist"))),
        None => Ok(found),
    }
}

/// `slice(start, stop, step)` of columns, by place or by name (whose end is included).
fn slice(spec: View<'_>, names: &[String], features: usize) -> Option<Vec<usize>> {
    let args = spec.args()?;
    let [start, stop, step] = args.as_slice() else { return None };
    if !(step.is_none() || step.int() == Some(1)) {
        return None;
    }
    let place = |end: &View<'_>, default: usize, after: usize| {
        if end.is_none() {
            return Some(default);
        }
        if let Some(name) = end.text() {
            return names.iter().position(|one| one == name).map(|place| place + after);
        }
        let place = end.int()?;
        let count = features as i64;
        usize::try_from(if place < 0 { (place + count).max(0) } else { place.min(count) }).ok()
    };
    Some((place(start, 0, 0)?..place(stop, features, 1)?).collect())
}

/// The width of a remainder is known, so it needs no note of its own.
fn passes(member: View<'_>) -> bool {
    let is_identity = member.object().is_some_and(|object| &*object.class.name == "FunctionTransformer")
        && member.attr("func").is_some_and(View::is_none);
    member.text() == Some("passthrough") || is_identity
}

pub(super) fn transformer(attrs: &Attrs<'_>, depth: usize) -> Result<Read> {
    let features = attrs.features()?;
    let names = attrs.opt("feature_names_in_").and_then(View::texts).unwrap_or_default();
    let mut building = Building::new(features);
    for step in attrs.estimators("transformers_")? {
        let triple = step.items().unwrap_or_default();
        let [name, member, spec, ..] = triple.as_slice() else {
            return Err(attrs.error("a part is not a triple"));
        };
        let name = name.text().unwrap_or_default();
        if member.text() == Some("drop") {
            continue;
        }
        let columns = indices(attrs, *spec, &names, features)?;
        if columns.is_empty() {
            continue;
        }
        if passes(*member) {
            building.pass(columns);
            continue;
        }
        let weights = attrs.opt("transformer_weights");
        let weight = weights.and_then(|weights| weights.entry(name)).and_then(View::float).unwrap_or(1.0);
        let estimator = read_at(*member, depth + 1)?;
        building.push(attrs, name, estimator, columns, weight)?;
    }
    Ok(building.finish(features))
}
