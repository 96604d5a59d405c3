//! Models and what several of them say together.
//!
//! A model works on a block of rows at a time: steps fill cells, then its body answers. Segments that are plain trees
//! are one grove, so that an ensemble is one walk.
//!
//! Not here: trees (`tree`), equations (`regression`), requests (`model`).

use super::expression::{Expr, Step, derive};
use super::fields::{Kind, Scope};
use super::predicate::Predicate;
use super::regression::Regression;
use super::sum::Sum;
use super::target::Rescale;
use super::tree::{Answer, Grove, NONE};
use super::xml::El;
use crate::error::Result;
use crate::sklearn::{Evaluated, argmax};

/// Rows of cells.
pub(super) struct Cells {
    pub(super) data: Vec<f64>,
    pub(super) width: usize,
    pub(super) count: usize,
}

impl Cells {
    fn row(&mut self, row: usize) -> &mut [f64] {
        &mut self.data[row * self.width..(row + 1) * self.width]
    }

    /// Some of the rows.
    fn pick(&self, rows: &[usize]) -> Self {
        let row = |row: &usize| &self.data[row * self.width..(row + 1) * self.width];
        Self { data: rows.iter().flat_map(row).copied().collect(), width: self.width, count: rows.len() }
    }
}

/// What a model says of rows: numbers, or classes with their probabilities.
pub(super) struct Scores {
    classes: usize,
    /// NaN is no answer.
    pub(super) numbers: Vec<f64>,
    pub(super) shares: Vec<f64>,
    /// [`NONE`] is no answer.
    pub(super) picks: Vec<u32>,
}

impl Scores {
    /// No answer yet. Regressions have no classes.
    fn new(count: usize, classes: usize) -> Self {
        let numbers = if classes == 0 { vec![f64::NAN; count] } else { Vec::new() };
        let picks = if classes == 0 { Vec::new() } else { vec![NONE; count] };
        Self { classes, numbers, shares: vec![f64::NAN; count * classes], picks }
    }

    /// A row's probabilities.
    pub(super) fn row(&mut self, row: usize) -> &mut [f64] {
        &mut self.shares[row * self.classes..(row + 1) * self.classes]
    }

    pub(super) fn lose(&mut self, row: usize) {
        self.picks[row] = NONE;
        self.row(row).fill(f64::NAN);
    }

    /// The most probable class is the answer.
    pub(super) fn pick_most(&mut self, row: usize) {
        self.picks[row] = argmax(self.row(row));
    }

    fn set(&mut self, row: usize, answer: &Answer) {
        if self.classes == 0 {
            self.numbers[row] = answer.number;
            return;
        }
        self.picks[row] = answer.pick;
        let shares = self.row(row);
        shares.fill(0.0);
        answer.shares.iter().for_each(|(class, share)| shares[*class as usize] = *share);
    }

    fn copy(&mut self, row: usize, from: &mut Scores, of: usize) {
        if self.classes == 0 {
            self.numbers[row] = from.numbers[of];
            return;
        }
        self.picks[row] = from.picks[of];
        self.row(row).copy_from_slice(from.row(of));
    }
}

/// A model: what it needs first, and its body.
pub(super) struct Predictor {
    steps: Vec<Step>,
    body: Body,
    rescale: Option<Rescale>,
    pub(super) is_classes: bool,
    is_float: bool,
}

enum Body {
    Regression(Regression),
    Tree(Grove),
    Trees(Grove, Vec<f64>, Method),
    Segments(Vec<Segment>, Method),
}

struct Segment {
    predicate: Predicate,
    weight: f64,
    predictor: Predictor,
    outputs: Vec<Output>,
}

/// What an answer leaves in a cell for later segments.
struct Output {
    to: usize,
    kind: Kind,
    what: Told,
}

enum Told {
    Number,
    Share(u32),
    Expr(Expr),
}

/// How segments answer together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    pub(super) how: How,
    /// Whether segments without an answer are left out; else they take the whole answer with them.
    pub(super) skips: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Vote,
    WeightedVote,
    Average,
    WeightedAverage,
    Sum,
    WeightedSum,
    First,
    Chain,
}

impl Method {
    fn read(el: El<'_>, is_classes: bool) -> Result<Self> {
        let name = el.need("multipleModelMethod")?;
        let how = match (name, is_classes) {
            ("majorityVote", true) => How::Vote,
            ("weightedMajorityVote", true) => How::WeightedVote,
            ("average", _) => How::Average,
            ("weightedAverage", _) => How::WeightedAverage,
            ("sum", false) => How::Sum,
            ("weightedSum" | "x-weightedSum", false) => How::WeightedSum,
            ("selectFirst", _) => How::First,
            ("modelChain", _) => How::Chain,
            (other, _) => return Err(el.refuse_value("multipleModelMethod", other)),
        };
        let skips = match el.attr("missingPredictionTreatment") {
            Some("returnMissing") => false,
            Some("skipSegment") if el.attr("missingThreshold").is_none_or(|most| most.trim() == "1") => true,
            Some("skipSegment") => return Err(el.refuse_value("missingThreshold", "below 1")),
            // Without a word, a vote that is missing does not count and a number that is missing is passed on.
            None | Some("continue") => matches!(how, How::Vote | How::WeightedVote),
            Some(other) => return Err(el.refuse_value("missingPredictionTreatment", other)),
        };
        Ok(Self { how, skips })
    }
}

impl Predictor {
    /// Whether elements of this name are models, known or not.
    pub(super) fn is(el: El<'_>) -> bool {
        el.name().ends_with("Model") || matches!(el.name(), "NeuralNetwork" | "RuleSetModel" | "Scorecard")
    }

    /// Reads a model. The outermost one's schema has been read.
    pub(super) fn read<'d>(el: El<'d>, scope: &mut Scope<'d>, is_outermost: bool) -> Result<Self> {
        let since = scope.enter();
        let predictor = Self::open(el, scope, is_outermost)?;
        scope.leave(since);
        Ok(predictor)
    }

    /// Reads a model and leaves its names in the scope.
    fn open<'d>(el: El<'d>, scope: &mut Scope<'d>, is_outermost: bool) -> Result<Self> {
        if el.attr("isScorable") == Some("false") {
            return Err(el.refuse_value("isScorable", "false"));
        }
        let is_classes = match el.need("functionName")? {
            "classification" => true,
            "regression" => false,
            other => return Err(el.refuse_value("functionName", other)),
        };
        let is_float = el.attr("mathContext").or(el.attr("x-mathContext")) == Some("float");
        let (mut steps, mut rescale) = (Vec::new(), None);
        for part in el.children() {
            match part.name() {
                "MiningSchema" if !is_outermost => scope.inner(part, &mut steps)?,
                "MiningSchema" | "Output" | "ModelStats" | "ModelExplanation" | "ModelVerification" => {}
                "Targets" if is_classes => {}
                "Targets" => rescale = Rescale::read(part)?,
                "LocalTransformations" => derive(part, scope, &mut steps)?,
                "Node" | "RegressionTable" | "Segmentation" => {}
                _ => return Err(part.refuse()),
            }
        }
        let body = match el.name() {
            "RegressionModel" => Body::Regression(Regression::read(el, scope, is_classes, is_float)?),
            "TreeModel" => {
                let mut grove = Grove::default();
                grove.add(el, scope, is_classes)?;
                grove.finish();
                Body::Tree(grove)
            }
            "MiningModel" => {
                let part = el.child("Segmentation").ok_or_else(|| el.error("it has no Segmentation"))?;
                segmentation(part, scope, is_classes)?
            }
            _ => return Err(el.refuse()),
        };
        Ok(Self { steps, body, rescale, is_classes, is_float })
    }

    /// What the segments and trees are, in numbers: trees, nodes, coefficients.
    pub(super) fn sizes(&self) -> [usize; 3] {
        match &self.body {
            Body::Regression(regression) => [0, 0, regression.size()],
            Body::Tree(grove) | Body::Trees(grove, ..) => [grove.count(), grove.nodes(), 0],
            Body::Segments(segments, _) => segments.iter().fold([0; 3], |sum, segment| {
                let own = segment.predictor.sizes();
                std::array::from_fn(|at| sum[at] + own[at])
            }),
        }
    }

    pub(super) fn row_cost_ns(&self) -> u64 {
        let body = match &self.body {
            Body::Regression(regression) => regression.size() as u64 * 2,
            Body::Tree(grove) | Body::Trees(grove, ..) => grove.row_cost_ns(),
            Body::Segments(segments, _) => segments.iter().map(|one| one.predictor.row_cost_ns()).sum(),
        };
        body + self.steps.len() as u64 * 5 + 20
    }

    /// Answers rows. `classes` are those of the whole document.
    pub(super) fn answer(&self, cells: &mut Cells, classes: usize) -> Evaluated<Scores> {
        for row in 0..cells.count {
            let row = cells.row(row);
            self.steps.iter().try_for_each(|step| step.run(row))?;
        }
        let mut scores = Scores::new(cells.count, if self.is_classes { classes } else { 0 });
        match &self.body {
            Body::Regression(regression) => {
                (0..cells.count).for_each(|row| regression.answer(cells.row(row), row, &mut scores));
            }
            Body::Tree(grove) => grove.visit(cells, |row, _, answer| {
                if let Some(answer) = answer {
                    scores.set(row, answer);
                }
            }),
            Body::Trees(grove, weights, method) => {
                let mut sum = Sum::new(*method, cells.count, scores.classes, self.is_float);
                grove.visit(cells, |row, tree, answer| match answer {
                    Some(answer) => sum.add(row, weights[tree], answer.number, answer.pick, |add| {
                        answer.shares.iter().for_each(|(class, share)| add(*class as usize, *share));
                    }),
                    None => sum.lose(row),
                });
                sum.finish(&mut scores);
            }
            Body::Segments(segments, method) => {
                self.segments(segments, *method, cells, classes, &mut scores)?
            }
        }
        if let Some(rescale) = &self.rescale {
            scores.numbers.iter_mut().for_each(|number| *number = rescale.apply(*number, self.is_float));
        }
        Ok(scores)
    }

    fn segments(
        &self,
        segments: &[Segment],
        method: Method,
        cells: &mut Cells,
        classes: usize,
        scores: &mut Scores,
    ) -> Evaluated {
        if method.how == How::Chain {
            for segment in segments {
                *scores = segment.predictor.answer(cells, classes)?;
                segment.tell(cells, scores);
            }
            return Ok(());
        }
        let mut sum = Sum::new(method, cells.count, scores.classes, self.is_float);
        let mut open: Vec<usize> = (0..cells.count).collect();
        for segment in segments {
            let chosen =
                |row: &usize| segment.predicate.holds(&cells.data[row * cells.width..][..cells.width]);
            let (rows, rest): (Vec<usize>, Vec<usize>) =
                open.iter().copied().partition(|row| chosen(row) == Some(true));
            if rows.is_empty() {
                continue;
            }
            let mut own = segment.predictor.answer(&mut cells.pick(&rows), classes)?;
            if method.how == How::First {
                rows.iter().enumerate().for_each(|(of, row)| scores.copy(*row, &mut own, of));
                open = rest;
                continue;
            }
            for (of, row) in rows.into_iter().enumerate() {
                let number = own.numbers.get(of).copied().unwrap_or(f64::NAN);
                let pick = own.picks.get(of).copied().unwrap_or(NONE);
                sum.add(row, segment.weight, number, pick, |add| {
                    own.row(of).iter().enumerate().for_each(|(class, share)| add(class, *share));
                });
            }
        }
        if method.how != How::First {
            sum.finish(scores);
        }
        Ok(())
    }
}

impl Segment {
    /// Writes the outputs that later segments read.
    fn tell(&self, cells: &mut Cells, scores: &mut Scores) {
        for row in 0..cells.count {
            for output in &self.outputs {
                let value = match &output.what {
                    Told::Number => scores.numbers[row],
                    Told::Share(class) => scores.row(row)[*class as usize],
                    Told::Expr(expr) => expr.value(cells.row(row)),
                };
                cells.row(row)[output.to] = output.kind.hold(value).unwrap_or(f64::NAN);
            }
        }
    }
}

/// Reads the segments of a `MiningModel`.
fn segmentation<'d>(el: El<'d>, scope: &mut Scope<'d>, is_classes: bool) -> Result<Body> {
    let method = Method::read(el, is_classes)?;
    let is_chain = method.how == How::Chain;
    if !is_chain && method.how != How::First && el.children().all(is_plain_tree) {
        return trees(el, scope, is_classes, method);
    }
    let mut segments = Vec::new();
    for part in el.children() {
        if part.name() != "Segment" {
            return Err(part.refuse());
        }
        let predicate = part.children().find(|child| Predicate::is(*child));
        let predicate = predicate.ok_or_else(|| part.error("it has no predicate"))?;
        let model = part.children().find(|child| Predictor::is(*child));
        let model = model.ok_or_else(|| part.error("it has no model"))?;
        let predicate = Predicate::read(predicate, scope)?;
        if is_chain && !matches!(predicate, Predicate::True) {
            return Err(part.error("a segment of a modelChain that is not for every row"));
        }
        let since = scope.enter();
        let predictor = Predictor::open(model, scope, false)?;
        let output = model.child("Output").filter(|_| is_chain);
        let told = output.map_or(Ok(Vec::new()), |output| outputs(output, scope, predictor.is_classes))?;
        scope.leave(since);
        if !is_chain && predictor.is_classes != is_classes {
            return Err(model.error("its functionName is not that of the model around it"));
        }
        let mut kept = Vec::new();
        for (name, output) in told {
            scope.alias(name, output.to);
            kept.push(output);
        }
        segments.push(Segment { predicate, weight: weight(part)?, predictor, outputs: kept });
    }
    match segments.last() {
        None => Err(el.error("it has no segments")),
        Some(last) if last.predictor.is_classes != is_classes => {
            Err(el.error("the last segment's functionName is not that of the model around it"))
        }
        Some(_) => Ok(Body::Segments(segments, method)),
    }
}

fn weight(segment: El<'_>) -> Result<f64> {
    let weight = segment.float("weight")?.unwrap_or(1.0);
    if weight < 0.0 { Err(segment.error("its weight is negative")) } else { Ok(weight) }
}

/// Whether a segment is a tree for every row that only needs the fields around it.
fn is_plain_tree(segment: El<'_>) -> bool {
    let Some(tree) = segment.child("TreeModel") else { return false };
    let treats = ["missingValueReplacement", "missingValueTreatment", "outliers"];
    let is_plain = |field: El<'_>| treats.iter().all(|name| field.attr(name).is_none());
    segment.child("True").is_some()
        && tree.child("Targets").is_none()
        && tree.child("LocalTransformations").is_none()
        && tree.child("MiningSchema").is_none_or(|schema| schema.children().all(is_plain))
}

fn trees<'d>(el: El<'d>, scope: &mut Scope<'d>, is_classes: bool, method: Method) -> Result<Body> {
    let (mut grove, mut weights) = (Grove::default(), Vec::new());
    for segment in el.children() {
        let Some(tree) = segment.child("TreeModel") else { continue };
        let function = if is_classes { "classification" } else { "regression" };
        if tree.need("functionName")? != function {
            return Err(tree.error("its functionName is not that of the model around it"));
        }
        if let Some(schema) = tree.child("MiningSchema") {
            scope.inner(schema, &mut Vec::new())?;
        }
        grove.add(tree, scope, is_classes)?;
        weights.push(weight(segment)?);
    }
    if grove.count() == 0 {
        return Err(el.error("it has no segments"));
    }
    grove.finish();
    Ok(Body::Trees(grove, weights, method))
}

/// Reads an `Output`; what later segments cannot use is left out, and unknown to them.
fn outputs<'d>(el: El<'d>, scope: &mut Scope<'d>, is_classes: bool) -> Result<Vec<(&'d str, Output)>> {
    let mut all = Vec::new();
    for field in el.children().filter(|field| field.name() == "OutputField") {
        let name = field.need("name")?;
        let what = match field.attr("feature") {
            None | Some("predictedValue") if !is_classes => Told::Number,
            Some("probability") if is_classes => match field.attr("value") {
                Some(value) => Told::Share(scope.class(value)),
                None => continue,
            },
            Some("transformedValue") => match field.children().next() {
                Some(inner) => Told::Expr(Expr::read(inner, scope)?),
                None => continue,
            },
            _ => continue,
        };
        let kind = if field.attr("dataType").is_some() { scope.kind(field)? } else { Kind::Double };
        if matches!(kind, Kind::Text(_)) {
            continue;
        }
        let to = scope.add(name, kind);
        all.push((name, Output { to, kind, what }));
    }
    Ok(all)
}
