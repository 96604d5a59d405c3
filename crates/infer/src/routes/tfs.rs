//! TensorFlow Serving's REST API: predict, classify, regress, status and metadata.
//!
//! A model that is no TensorFlow model has one signature, `serving_default`. Classify and regress ask more of its
//! outputs than predict does: outputs named `classes` and `scores` are used as such; else texts and whole numbers
//! are classes, and floating-point numbers are scores or the regression's values.
//!
//! Not here: the bodies (`codecs::tfs`), which paths there are (`models`).

use std::borrow::Cow;
use std::sync::Arc;

use codecs::call::Call;
use codecs::tfs::{self, Format, VersionStatus};
use models::{DType, Outputs, Signature, Tensor};

use super::models::Path;
use super::v1::malformed as wrong_body;
use super::{Routed, get};
use crate::bind::Binder;
use crate::evaluate::Inputs;
use crate::exchange::{Asked, Message, Protocol, Reply, TfsCall};
use crate::http::Verb;
use crate::metrics::{Api, Entry};
use crate::refusal::{Reason, Refusal};
use crate::repository::{ModelStatus, NotServed, Repository, State, Which};
use crate::served::Served;
use crate::shared::Shared;

/// The answer to what is no path of the API.
pub(super) fn malformed(verb: Verb, path: &str, reply: &mut Reply) -> Routed {
    let verb = match verb {
        Verb::Get => "GET",
        Verb::Head => "HEAD",
        Verb::Post => "POST",
        Verb::Options => "OPTIONS",
        Verb::Other => "?",
    };
    let shown: String = path.chars().take(200).collect();
    refused(&Refusal::new(Reason::Malformed, format!("Malformed request: {verb} {shown}")), reply)
}

fn refused(refusal: &Refusal, reply: &mut Reply) -> Routed {
    reply.status = refusal.http();
    tfs::write_error(&mut reply.body, &refusal.text);
    Routed::Answered
}

/// TensorFlow Serving's words for a version that does not answer.
pub(crate) fn refusal_of(error: &NotServed, name: &str, which: Which<'_>) -> Refusal {
    match (error, which) {
        (NotServed::Label(_, label), _) => {
            Refusal::new(Reason::Input, format!("Unrecognized servable version label: {label}"))
        }
        (_, Which::Version(version)) => Refusal::new(
            Reason::NotFound,
            format!("Servable not found for request: Specific({name}, {version})"),
        ),
        _ => Refusal::new(Reason::NotFound, format!("Servable not found for request: Latest({name})")),
    }
}

/// Finds a version. A folder without versions is version 1 to clients that need a number.
pub(crate) fn find(repository: &Repository, name: &str, which: Which<'_>) -> Result<Arc<Served>, NotServed> {
    match repository.find(name, which) {
        Err(error @ NotServed::Version(..)) if which == Which::Version(1) => {
            let served = repository.find(name, Which::Default).ok();
            served.filter(|served| served.version.is_none()).ok_or(error)
        }
        found => found,
    }
}

/// The answer of a call to a version that does not answer.
pub(super) fn not_served(error: &NotServed, path: &Path<'_>, reply: &mut Reply) -> Routed {
    refused(&refusal_of(error, &path.name, path.version.which()), reply)
}

/// The states of a model's versions, or of the one that is asked for.
pub(crate) fn states(
    model: Option<ModelStatus>,
    name: &str,
    which: Which<'_>,
) -> Result<Vec<VersionStatus>, Refusal> {
    let none = || Refusal::new(Reason::NotFound, format!("Could not find any versions of model {name}"));
    let model = model.ok_or_else(none)?;
    let wanted = match which {
        Which::Version(version) => Some(version),
        // A label is ignored and all versions are told, as TensorFlow Serving does.
        Which::Default | Which::Label(_) => None,
    };
    let mut all: Vec<VersionStatus> = Vec::new();
    // Newest first.
    for version in model.versions.iter().rev() {
        let number = version_number(version.version);
        if wanted.is_some_and(|wanted| i64::try_from(wanted) != Ok(number)) {
            continue;
        }
        let state = match version.state {
            State::Start => 10,
            State::Loading => 20,
            State::Available => 30,
            State::Unloading => 40,
            State::End => 50,
        };
        all.push(VersionStatus {
            version: number,
            state,
            code: if version.error.is_some() { 2 } else { 0 },
            message: version.error.clone().unwrap_or_default(),
        });
    }
    match (all.is_empty(), wanted) {
        (false, _) => Ok(all),
        (true, None) => Err(none()),
        (true, Some(version)) => {
            let text = format!("Could not find version {version} of model {name}");
            Err(Refusal::new(Reason::NotFound, text))
        }
    }
}

/// A folder without versions is version 1 to clients that need a number.
pub(crate) fn version_number(version: Option<u64>) -> i64 {
    version.map_or(1, |version| i64::try_from(version).unwrap_or(i64::MAX))
}

/// `GET /v1/models/M`.
pub(super) fn status(verb: Verb, path: &Path<'_>, shared: &Shared, reply: &mut Reply) -> Routed {
    match states(shared.repository.status(&path.name), &path.name, path.version.which()) {
        Ok(states) => get(verb, reply, |out| tfs::write_status(out, &states)),
        Err(refusal) => refused(&refusal, reply),
    }
}

/// `GET /v1/models/M/metadata`.
pub(super) fn metadata(
    verb: Verb,
    path: &Path<'_>,
    found: Result<Arc<Served>, NotServed>,
    reply: &mut Reply,
) -> Routed {
    match found {
        Ok(served) => get(verb, reply, |out| {
            let signatures = signatures(&served);
            tfs::write_metadata(out, &served.name, version_number(served.version), &signatures);
        }),
        Err(error) => not_served(&error, path, reply),
    }
}

/// All signatures of a version with their names and purposes.
pub(crate) fn signatures(served: &Served) -> Vec<(&str, &Signature, &str)> {
    let all = served.signatures().into_iter();
    all.map(|one| (one.named.name.as_str(), one.backend.signature(), one.named.method())).collect()
}

/// The signature of that name, where it is another than the default one; an error where there is none.
pub(crate) fn signature(served: &Served, name: &str) -> Result<Option<Arc<Served>>, Refusal> {
    if name.is_empty() || name == served.named.name {
        return Ok(None);
    }
    if let Some(other) = served.other(name) {
        return Ok(Some(other.clone()));
    }
    let shown: String = name.chars().take(200).collect();
    let text = format!("Serving signature name: \"{shown}\" not found in signature def");
    Err(Refusal::new(Reason::Input, text))
}

/// Checks that the signature has the purpose of the call. Predict takes all signatures, as TensorFlow Serving does.
pub(crate) fn check_method(served: &Served, which: TfsCall) -> Result<(), Refusal> {
    let (word, wanted) = match which {
        TfsCall::Predict => return Ok(()),
        TfsCall::Classify => ("classification", models::CLASSIFY),
        TfsCall::Regress => ("regression", models::REGRESS),
    };
    match &served.named.method {
        Some(method) if method != wanted => {
            let text = format!("Expected {word} signature method_name to be {wanted}. Was: {method}");
            Err(Refusal::new(Reason::Input, text))
        }
        _ => Ok(()),
    }
}

/// For each example its labels with their scores.
pub(crate) type Classes<'t> = Vec<Vec<(Cow<'t, str>, f32)>>;

/// The outputs as classes.
pub(crate) fn classes<'t>(
    served: &Served,
    outputs: &'t Outputs,
    rows: usize,
) -> Result<Classes<'t>, Refusal> {
    let specs = &served.backend.signature().outputs;
    let named = |name: &str| specs.iter().position(|spec| spec.name == name);
    let is_score = |tensor: &&Tensor<'_>| matches!(tensor.dtype(), DType::F32 | DType::F64);
    let tensors = outputs.tensors();
    let by_name = |name: &str| named(name).and_then(|place| tensors.get(place));
    let (labels, scores) = match (by_name("classes"), by_name("scores")) {
        (None, None) => (tensors.iter().find(|tensor| !is_score(tensor)), tensors.iter().find(is_score)),
        both => both,
    };
    let per_row = |tensor: &Tensor<'_>| tensor.dims().iter().skip(1).product::<usize>();
    let texts: Option<Vec<Cow<'t, str>>> = labels.and_then(|tensor| match tensor.dtype() {
        DType::Text => Some(tensor.elements().flatten().map(String::from_utf8_lossy).collect()),
        _ => Some(tensor.to_f64s()?.iter().map(|number| number.to_string().into()).collect()),
    });
    let numbers = scores.and_then(|tensor| tensor.to_f64s());
    let width = match (labels, scores) {
        (Some(labels), Some(scores)) if per_row(labels) == per_row(scores) => per_row(scores),
        (Some(labels), None) => per_row(labels),
        (None, Some(scores)) => per_row(scores),
        _ => {
            let text = format!("model {:?} has no outputs of classes and scores", &*served.name);
            return Err(Refusal::new(Reason::Input, text));
        }
    };
    let class = |place: usize| {
        let label = texts.as_ref().and_then(|texts| texts.get(place).cloned()).unwrap_or_default();
        let score = numbers.as_ref().and_then(|numbers| numbers.get(place)).copied().unwrap_or(0.0);
        (label, score as f32)
    };
    Ok((0..rows).map(|row| (row * width..(row + 1) * width).map(class).collect()).collect())
}

/// The outputs as one number for each example.
pub(crate) fn regressions(served: &Served, outputs: &Outputs, rows: usize) -> Result<Vec<f32>, Refusal> {
    let numbers = outputs.tensors().iter().find(|tensor| matches!(tensor.dtype(), DType::F32 | DType::F64));
    let numbers = numbers.filter(|tensor| matches!(tensor.dims(), [count] | [count, 1] if *count == rows));
    let numbers = numbers.and_then(|tensor| tensor.to_f64s()).ok_or_else(|| {
        let text = format!("model {:?} has no output of one number for each example", &*served.name);
        Refusal::new(Reason::Input, text)
    })?;
    Ok(numbers.iter().map(|number| *number as f32).collect())
}

/// The three calls.
#[derive(Debug, Default)]
pub(crate) struct Tfs {
    call: Call,
    binder: Binder,
    format: Option<Format>,
    which: TfsCall,
    rows: usize,
}

impl Tfs {
    /// Says which call comes.
    pub(crate) fn begin(&mut self, which: TfsCall) {
        self.which = which;
    }
}

impl Protocol for Tfs {
    fn choose(&self, served: &Served, body: &[u8]) -> Result<Option<Arc<Served>>, Refusal> {
        let parts = tfs::scan(body).map_err(wrong_body)?;
        signature(served, parts.signature.as_deref().unwrap_or_default())
    }

    fn way(&self) -> (Api, Entry) {
        (self.which.api(), Entry::Rest)
    }

    fn another(&self) -> Self {
        Self { which: self.which, ..Self::default() }
    }

    fn parse(&mut self, served: &Served, message: Message<'_>) -> Result<Asked, Refusal> {
        let body = message.body;
        let parts = tfs::scan(body).map_err(wrong_body)?;
        signature(served, parts.signature.as_deref().unwrap_or_default())?;
        check_method(served, self.which)?;
        let signature = served.backend.signature();
        match self.which {
            TfsCall::Predict => {
                let format = tfs::predict(body, &parts, signature, &mut self.call).map_err(wrong_body)?;
                self.format = Some(format);
            }
            TfsCall::Classify | TfsCall::Regress if served.named.takes_examples => {
                tfs::serialised_examples(body, &parts, signature, &mut self.call).map_err(wrong_body)?;
            }
            TfsCall::Classify | TfsCall::Regress => {
                tfs::examples(body, &parts, signature, &mut self.call).map_err(wrong_body)?;
            }
        }
        self.rows = self.binder.bind(served, self.call.view(body))?;
        Ok(Asked { rows: self.rows, ..Asked::default() })
    }

    fn inputs<'a>(&'a self, served: &'a Served, body: &'a [u8]) -> Result<Inputs<'a>, Refusal> {
        self.binder.inputs(served, self.call.view(body))
    }

    fn write(
        &mut self,
        served: &Served,
        _body: &[u8],
        outputs: &Outputs,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let out = &mut reply.body;
        let specs = &served.backend.signature().outputs;
        match self.which {
            TfsCall::Predict => {
                let row = self.format == Some(Format::Row);
                let write = |out: &mut Vec<u8>, named: &[(&str, &Tensor<'_>)]| match row {
                    true => tfs::write_rows(out, named).map_err(|text| Refusal::new(Reason::Input, text)),
                    false => {
                        tfs::write_columns(out, named);
                        Ok(())
                    }
                };
                if let ([spec], [tensor]) = (specs.as_slice(), outputs.tensors()) {
                    return write(out, &[(spec.name.as_str(), tensor)]);
                }
                let named: Vec<(&str, &Tensor<'_>)> =
                    specs.iter().map(|spec| spec.name.as_str()).zip(outputs.tensors()).collect();
                write(out, &named)
            }
            TfsCall::Classify => {
                let classes = classes(served, outputs, self.rows)?;
                let rows = classes.iter().map(|row| row.iter().map(|(label, score)| (&**label, *score)));
                tfs::write_classifications(out, rows);
                Ok(())
            }
            TfsCall::Regress => {
                tfs::write_regressions(out, regressions(served, outputs, self.rows)?.into_iter());
                Ok(())
            }
        }
    }

    fn refuse(&mut self, _served: Option<&Served>, refusal: &Refusal, reply: &mut Reply) {
        tfs::write_error(&mut reply.body, &refusal.text);
    }

    fn shrink(&mut self) {
        self.call.clear();
        self.binder.shrink();
    }
}
