//! Fields: what a document calls them, what they may hold, and which cell of a row has them.
//!
//! Every value is a number in a cell. Texts are codes, given out field by field in the order in which the document
//! names them; a text that it does not name has the code behind the last one and equals nothing. NaN is missing.
//!
//! Not here: expressions (`expression`), rows of requests (`model`).

use std::collections::HashMap;

use super::expression::Step;
use super::xml::{El, short};
use crate::backend::BackendError;
use crate::error::Result;
use crate::sklearn::{Evaluated, Rows};

/// What the numbers of a cell are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    /// 32 bits.
    Float,
    Integer,
    Boolean,
    /// Codes of this vocabulary.
    Text(usize),
}

impl Kind {
    /// The number as the type holds it; `None` where it cannot.
    pub(super) fn hold(self, number: f64) -> Option<f64> {
        match self {
            Self::Float => Some(f64::from(number as f32)),
            Self::Integer => (number.fract() == 0.0).then_some(number),
            Self::Boolean => (number == 0.0 || number == 1.0).then_some(number),
            Self::Double | Self::Text(_) => Some(number),
        }
    }
}

struct Interval {
    low: f64,
    high: f64,
    is_low_open: bool,
    is_high_open: bool,
}

impl Interval {
    fn read(el: El<'_>) -> Result<Self> {
        let closure = el.need("closure")?;
        let (is_low_open, is_high_open) = match closure {
            "openClosed" => (true, false),
            "openOpen" => (true, true),
            "closedOpen" => (false, true),
            "closedClosed" => (false, false),
            other => return Err(el.refuse_value("closure", other)),
        };
        let low = el.float("leftMargin")?.unwrap_or(f64::NEG_INFINITY);
        let high = el.float("rightMargin")?.unwrap_or(f64::INFINITY);
        Ok(Self { low, high, is_low_open, is_high_open })
    }

    fn holds(&self, value: f64) -> bool {
        let above = if self.is_low_open { value > self.low } else { value >= self.low };
        let below = if self.is_high_open { value < self.high } else { value <= self.high };
        above && below
    }
}

/// A field of the dictionary.
pub(super) struct Field {
    pub(super) kind: Kind,
    /// The values that are listed as valid, as the document writes them.
    pub(super) listed: Vec<String>,
    valid: Vec<f64>,
    intervals: Vec<Interval>,
    missing: Vec<f64>,
    invalid: Vec<f64>,
}

impl Field {
    fn is_valid(&self, value: f64) -> bool {
        let is_free = self.valid.is_empty() && self.intervals.is_empty();
        let is_listed =
            self.valid.contains(&value) || self.intervals.iter().any(|interval| interval.holds(value));
        (is_free || is_listed) && !self.invalid.contains(&value)
    }
}

/// What is done with values that are out of bounds, missing or invalid.
pub(super) struct Treatment {
    invalid: Invalid,
    missing: Option<f64>,
    refuses_missing: bool,
    outliers: Outliers,
    low: f64,
    high: f64,
}

enum Invalid {
    Refused,
    AsIs,
    AsMissing,
    AsValue(f64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outliers {
    AsIs,
    Missing,
    Extreme,
}

impl Outliers {
    pub(super) fn read(el: El<'_>) -> Result<Self> {
        match el.attr("outliers").or(el.attr("outlierTreatment")) {
            None | Some("asIs") => Ok(Self::AsIs),
            Some("asMissingValues") => Ok(Self::Missing),
            Some("asExtremeValues") => Ok(Self::Extreme),
            Some(other) => Err(el.refuse_value("outliers", other)),
        }
    }
}

impl Treatment {
    fn read(el: El<'_>, scope: &mut Scope<'_>, kind: Kind) -> Result<Self> {
        let mut value = |text: Option<&str>| text.map(|text| scope.encode(el, kind, text)).transpose();
        let missing = value(el.attr("missingValueReplacement"))?;
        let replacement = value(el.attr("invalidValueReplacement"))?;
        let invalid = match (el.attr("invalidValueTreatment"), replacement) {
            (None | Some("returnInvalid"), _) => Invalid::Refused,
            // Before 4.4 a replacement made `asIs` a value.
            (Some("asValue" | "asIs"), Some(value)) => Invalid::AsValue(value),
            (Some("asIs"), None) => Invalid::AsIs,
            (Some("asMissing"), _) => Invalid::AsMissing,
            (Some(other), _) => return Err(el.refuse_value("invalidValueTreatment", other)),
        };
        let refuses_missing = match el.attr("missingValueTreatment") {
            Some("returnInvalid") => true,
            None | Some("asIs" | "asMean" | "asMode" | "asMedian" | "asValue") => false,
            Some(other) => return Err(el.refuse_value("missingValueTreatment", other)),
        };
        let outliers = Outliers::read(el)?;
        if outliers != Outliers::AsIs && matches!(kind, Kind::Text(_)) {
            return Err(el.error("outliers of texts"));
        }
        let low = el.float("lowValue")?.unwrap_or(f64::NEG_INFINITY);
        let high = el.float("highValue")?.unwrap_or(f64::INFINITY);
        if low > high {
            return Err(el.error("lowValue is above highValue"));
        }
        Ok(Self { invalid, missing, refuses_missing, outliers, low, high })
    }

    fn changes_nothing(&self) -> bool {
        self.missing.is_none() && self.outliers == Outliers::AsIs && !self.refuses_missing
    }

    /// A value that is valid or missing.
    pub(super) fn treat(&self, value: f64, name: &str) -> Evaluated<f64> {
        let is_out = value < self.low || value > self.high;
        let value = match self.outliers {
            Outliers::Missing if is_out => f64::NAN,
            Outliers::Extreme if is_out => value.clamp(self.low, self.high),
            _ => value,
        };
        if !value.is_nan() {
            return Ok(value);
        }
        if self.refuses_missing {
            return Err(BackendError::Input(format!("the field {name:?} is missing")));
        }
        Ok(self.missing.unwrap_or(f64::NAN))
    }
}

/// A field that requests bring.
pub(super) struct Input {
    pub(super) name: String,
    pub(super) field: Field,
    pub(super) slot: usize,
    treatment: Treatment,
}

impl Input {
    /// The value of a cell of the request.
    pub(super) fn take(&self, words: &[Words], rows: Rows<'_>, cell: f64) -> Evaluated<f64> {
        let value = match self.field.kind {
            Kind::Text(of) => match rows.text(cell, |text| words[of].code(text)) {
                Some(code) => Some(code),
                None => return self.treatment.treat(f64::NAN, &self.name),
            },
            _ if cell.is_nan() => return self.treatment.treat(f64::NAN, &self.name),
            kind => kind.hold(cell),
        };
        if value.is_some_and(|value| self.field.missing.contains(&value)) {
            return self.treatment.treat(f64::NAN, &self.name);
        }
        if let Some(value) = value.filter(|value| self.field.is_valid(*value)) {
            return self.treatment.treat(value, &self.name);
        }
        match self.treatment.invalid {
            Invalid::AsIs => Ok(value.unwrap_or(cell)),
            Invalid::AsMissing => self.treatment.treat(f64::NAN, &self.name),
            Invalid::AsValue(value) => Ok(value),
            Invalid::Refused => {
                let shown = rows.text(cell, |text| format!("{:?}", short(text)));
                let shown = shown.unwrap_or_else(|| cell.to_string());
                Err(BackendError::Input(format!("{shown} is no valid value of the field {:?}", self.name)))
            }
        }
    }
}

/// The texts of a field, and their codes.
#[derive(Default)]
pub(super) struct Words(HashMap<String, u32>);

impl Words {
    fn code(&self, text: &str) -> f64 {
        f64::from(self.0.get(text).copied().unwrap_or(self.0.len() as u32))
    }

    fn add(&mut self, text: &str) -> f64 {
        let next = self.0.len() as u32;
        f64::from(*self.0.entry(text.to_owned()).or_insert(next))
    }
}

/// What names mean at a place of the document.
#[derive(Default)]
pub(super) struct Scope<'d> {
    fields: HashMap<&'d str, Field>,
    names: HashMap<&'d str, Vec<usize>>,
    /// The names in the order in which they got a meaning.
    log: Vec<&'d str>,
    pub(super) slots: Vec<Kind>,
    pub(super) words: Vec<Words>,
    /// The classes of the target, in the order of the dictionary.
    pub(super) classes: Vec<String>,
    places: HashMap<String, u32>,
    pub(super) target: Option<&'d str>,
}

impl<'d> Scope<'d> {
    /// Reads the `DataDictionary`.
    pub(super) fn dictionary(&mut self, dictionary: El<'d>) -> Result<()> {
        for el in dictionary.children() {
            match el.name() {
                "DataField" => {
                    let field = self.field(el)?;
                    if self.fields.insert(el.need("name")?, field).is_some() {
                        return Err(el.error("the field is there twice"));
                    }
                }
                "Taxonomy" => {}
                _ => return Err(el.refuse()),
            }
        }
        Ok(())
    }

    pub(super) fn kind(&mut self, el: El<'_>) -> Result<Kind> {
        Ok(match el.need("dataType")? {
            "double" => Kind::Double,
            "float" => Kind::Float,
            "integer" => Kind::Integer,
            "boolean" => Kind::Boolean,
            "string" => {
                self.words.push(Words::default());
                Kind::Text(self.words.len() - 1)
            }
            other => return Err(el.refuse_value("dataType", other)),
        })
    }

    fn field(&mut self, el: El<'d>) -> Result<Field> {
        if el.attr("isCyclic").is_some_and(|is| is == "1" || is == "true") {
            return Err(el.refuse_value("isCyclic", "1"));
        }
        let kind = self.kind(el)?;
        let mut field = Field {
            kind,
            listed: Vec::new(),
            valid: Vec::new(),
            intervals: Vec::new(),
            missing: Vec::new(),
            invalid: Vec::new(),
        };
        for part in el.children() {
            if part.name() == "Interval" {
                field.intervals.push(Interval::read(part)?);
                continue;
            }
            if part.name() != "Value" {
                return Err(part.refuse());
            }
            let text = part.need("value")?;
            if !matches!(kind, Kind::Text(_)) && text.trim().eq_ignore_ascii_case("nan") {
                continue;
            }
            let value = match part.attr("property") {
                // A mark of what is missing or invalid may be no value of the type.
                Some("missing" | "invalid") => match self.encode(part, kind, text) {
                    Ok(value) => value,
                    Err(_) => continue,
                },
                _ => self.encode(part, kind, text)?,
            };
            match part.attr("property") {
                None | Some("valid") => {
                    field.valid.push(value);
                    field.listed.push(text.to_owned());
                }
                Some("missing") => field.missing.push(value),
                Some("invalid") => field.invalid.push(value),
                Some(other) => return Err(part.refuse_value("property", other)),
            }
        }
        Ok(field)
    }

    /// Reads the outermost `MiningSchema`: the columns of requests, and the target.
    pub(super) fn inputs(&mut self, schema: El<'d>) -> Result<Vec<Input>> {
        let mut inputs: Vec<Input> = Vec::new();
        for el in schema.children() {
            let name = el.need("name")?;
            match usage(el)? {
                Usage::Target => {
                    if self.target.replace(name).is_some() {
                        return Err(el.refuse_value("usageType", "target"));
                    }
                    let Some(field) = self.fields.get(name) else { continue };
                    for class in field.listed.clone() {
                        self.class(&class);
                    }
                }
                Usage::Unused => {}
                Usage::Active => {
                    let Some(field) = self.fields.remove(name) else {
                        return Err(el.error(format!("{:?} is not in the DataDictionary", short(name))));
                    };
                    let treatment = Treatment::read(el, self, field.kind)?;
                    let slot = self.add(name, field.kind);
                    inputs.push(Input { name: name.to_owned(), field, slot, treatment });
                }
            }
        }
        Ok(inputs)
    }

    /// Reads the `MiningSchema` of a model within another one.
    pub(super) fn inner(&mut self, schema: El<'d>, steps: &mut Vec<Step>) -> Result<()> {
        for el in schema.children() {
            let name = el.need("name")?;
            match usage(el)? {
                Usage::Unused => {}
                Usage::Target if self.target.is_none_or(|target| target == name) => {}
                Usage::Target => {
                    return Err(el.error(format!("{:?} is not the target of the whole model", short(name))));
                }
                Usage::Active => {
                    let from = self.slot(el, name)?;
                    let kind = self.slots[from];
                    let treatment = Treatment::read(el, self, kind)?;
                    if !treatment.changes_nothing() {
                        let to = self.add(name, kind);
                        steps.push(Step::Treat { from, to, treatment, name: name.to_owned() });
                    }
                }
            }
        }
        Ok(())
    }

    /// The type of the target, if the dictionary has it.
    pub(super) fn target_kind(&self) -> Option<Kind> {
        self.target.and_then(|name| self.fields.get(name)).map(|field| field.kind)
    }

    /// Gives a name a cell of its own.
    pub(super) fn add(&mut self, name: &'d str, kind: Kind) -> usize {
        self.slots.push(kind);
        self.alias(name, self.slots.len() - 1);
        self.slots.len() - 1
    }

    /// Gives a name the cell of another.
    pub(super) fn alias(&mut self, name: &'d str, slot: usize) {
        self.names.entry(name).or_default().push(slot);
        self.log.push(name);
    }

    /// How many names have got a meaning so far, for [`Scope::leave`].
    pub(super) fn enter(&self) -> usize {
        self.log.len()
    }

    /// Takes back what names came to mean since.
    pub(super) fn leave(&mut self, since: usize) {
        for name in self.log.drain(since..) {
            self.names.get_mut(name).and_then(Vec::pop);
        }
    }

    pub(super) fn slot(&self, el: El<'_>, name: &str) -> Result<usize> {
        let slot = self.names.get(name).and_then(|slots| slots.last());
        slot.copied().ok_or_else(|| el.error(format!("the field {:?} is not known here", short(name))))
    }

    /// A value in the document as a cell has it.
    pub(super) fn encode(&mut self, el: El<'_>, kind: Kind, text: &str) -> Result<f64> {
        if let Kind::Text(of) = kind {
            return Ok(self.words[of].add(text));
        }
        let number = match (kind, text.trim()) {
            (Kind::Boolean, "true") => 1.0,
            (Kind::Boolean, "false") => 0.0,
            (_, text) => el.number(text)?,
        };
        // Fractions among integers are compared as they are.
        Ok(if kind == Kind::Float { f64::from(number as f32) } else { number })
    }

    /// The place of a class.
    pub(super) fn class(&mut self, name: &str) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.classes.len() as u32;
        self.classes.push(name.to_owned());
        self.places.insert(name.to_owned(), place);
        place
    }
}

enum Usage {
    Active,
    Target,
    Unused,
}

fn usage(el: El<'_>) -> Result<Usage> {
    if el.name() != "MiningField" {
        return Err(el.refuse());
    }
    Ok(match el.attr("usageType") {
        None | Some("active") => Usage::Active,
        Some("target" | "predicted") => Usage::Target,
        Some("supplementary" | "order" | "frequencyWeight" | "analysisWeight") => Usage::Unused,
        Some(other) => return Err(el.refuse_value("usageType", other)),
    })
}
