//! Shadow traffic: a sample of a model's calls is asked of a second model or version too, and the answers compared.
//!
//! The call itself is over by then: its reply is written before its copy is queued, and the copy is worked on by one
//! thread of the lowest priority. A full queue drops copies and counts them. So a shadow that is slow, wrong or missing
//! costs the model that answers nothing but the copy of the body.
//!
//! Outputs are compared as tensors, before any protocol writes them: two numbers are the same up to
//! [`RELATIVE`] of the larger; texts and shapes have to be equal.
//!
//! Not here: tensors (`models`), the page (`admin`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use models::{DType, Outputs, Tensor};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::queue::{Bounds, Receiver, Sender, queue};
use super::random::Share;
use super::ship::Ship;
use super::watch::nanos;
use crate::background;
use crate::drive;
use crate::evaluate::{self, Call};
use crate::exchange::{Message, Protocol};
use crate::http::Meta;
use crate::refusal::Refusal;
use crate::repository::{Repository, Which};
use crate::served::Served;

/// Copies that wait, at most, and as many as are worked on without more waiting.
const BOUNDS: Bounds =
    Bounds { items_max: 64, bytes_max: usize::MAX, enough: 32, gather: background::GATHER };
/// Bytes of a body that is copied, at most.
const BODY_MAX: usize = 4 << 20;
/// Differences that are kept as examples of each pair.
const EXAMPLES: usize = 16;
/// How far apart two numbers may be that count as the same, as a share of the larger.
pub(super) const RELATIVE: f64 = 1e-6;

/// One model's calls and who is asked too.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The model that answers.
    pub model: String,
    /// The model that is asked too; it may be the same.
    pub target: String,
    /// Its version; `None` is its newest.
    pub version: Option<u64>,
    /// The share of the calls, from 0 to 1.
    pub share: f64,
}

impl std::str::FromStr for Rule {
    type Err = String;

    /// `MODEL=TARGET[/VERSION][@SHARE]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| format!("{text:?}: {what}, expected MODEL=TARGET[/VERSION][@SHARE]");
        let (model, rest) = text.split_once('=').ok_or_else(|| wrong("there is no ="))?;
        let (target, share) = match rest.rsplit_once('@') {
            Some((target, share)) => (target, share.parse().map_err(|_| wrong("the share is no number"))?),
            None => (rest, 1.0),
        };
        let (target, version) = match target.rsplit_once('/') {
            Some((target, version)) => {
                (target, Some(version.parse().map_err(|_| wrong("the version is no number"))?))
            }
            None => (target, None),
        };
        if model.is_empty() || target.is_empty() {
            return Err(wrong("a model has no name"));
        }
        if !(0.0..=1.0).contains(&share) {
            return Err(wrong("the share is not between 0 and 1"));
        }
        if model == target && version.is_none() {
            return Err(wrong("the model would be compared with itself"));
        }
        Ok(Self { model: model.to_owned(), target: target.to_owned(), version, share })
    }
}

/// What one rule has seen.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) rule: Rule,
    share: Share,
    pub(crate) seen: Seen,
}

/// Counts of comparisons; times in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) same: AtomicU64,
    pub(crate) different: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) primary_ns: AtomicU64,
    pub(crate) shadow_ns: AtomicU64,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    largest: f64,
    examples: VecDeque<Value>,
    last_failure: Option<String>,
}

impl Seen {
    /// The largest difference of two numbers so far.
    pub(crate) fn largest(&self) -> f64 {
        self.rest.lock().largest
    }

    /// Time of the shadow's evaluations over that of the primary's; `None` before the first.
    pub(crate) fn latency_ratio(&self) -> Option<f64> {
        let primary = self.primary_ns.load(Relaxed);
        (primary > 0).then(|| self.shadow_ns.load(Relaxed) as f64 / primary as f64)
    }
}

/// A copy that waits. It knows its protocol.
type Duplicate = Box<dyn FnOnce(&Repository, &mut Outputs) + Send>;

/// All pairs.
#[derive(Debug)]
pub(crate) struct Shadows {
    pub(crate) pairs: Vec<Arc<Pair>>,
    sender: Sender<Duplicate>,
}

/// A call that was answered, with what its shadow is to be asked.
pub(crate) struct Answered<'a, P> {
    pub(crate) protocol: &'a P,
    pub(crate) body: &'a [u8],
    pub(crate) meta: &'a Meta,
    pub(crate) outputs: &'a Outputs,
    /// How long its evaluation took, in nanoseconds.
    pub(crate) predict: u64,
}

impl Shadows {
    /// Starts the thread.
    pub(super) fn start(rules: &[Rule], repository: Repository) -> std::io::Result<Option<Self>> {
        if rules.is_empty() {
            return Ok(None);
        }
        let pair = |rule: &Rule| {
            Arc::new(Pair { rule: rule.clone(), share: Share::new(rule.share), seen: Seen::default() })
        };
        let stop = CancellationToken::new();
        let (sender, receiver) = queue(BOUNDS, stop.clone());
        // It ends when the last call's end of the queue is gone; no end of a server waits for shadows.
        Ship::start("shadow", stop, vec![Box::pin(run(receiver, repository))])?;
        Ok(Some(Self { pairs: rules.iter().map(pair).collect(), sender }))
    }

    /// The rule for a version: found once, when its first call comes.
    pub(crate) fn of(&self, served: &Served) -> Option<usize> {
        self.pairs.iter().position(|pair| {
            let is_target = *served.name == *pair.rule.target && served.version == pair.rule.version;
            *served.name == *pair.rule.model && !is_target
        })
    }

    /// Copies a call that was drawn.
    pub(crate) fn copy<P: Protocol>(&self, at: usize, call: &Answered<'_, P>) {
        let pair = &self.pairs[at];
        if !pair.share.draw() {
            return;
        }
        let place = if call.body.len() > BODY_MAX { None } else { self.sender.place(1, call.body.len()) };
        let Some(place) = place else {
            pair.seen.dropped.fetch_add(1, Relaxed);
            return;
        };
        let (protocol, meta, predict) = (call.protocol.another(), *call.meta, call.predict);
        let body = Bytes::copy_from_slice(call.body);
        let outputs: Vec<Tensor<'static>> = call.outputs.tensors().iter().map(Tensor::to_static).collect();
        let own = pair.clone();
        let copy: Duplicate = Box::new(move |repository, scratch| {
            let outcome = ask(&own.rule, repository, protocol, &body, &meta, scratch);
            own.take(outcome, &outputs, scratch, predict);
        });
        self.sender.send(place, copy);
    }
}

/// Works on what comes. The thread is the shadows' own, so that an evaluation may block it.
async fn run(mut copies: Receiver<Duplicate>, repository: Repository) {
    let (mut handful, mut outputs) = (Vec::new(), Outputs::new());
    while copies.take(&mut handful).await {
        for copy in handful.drain(..) {
            let ask = std::panic::AssertUnwindSafe(|| (copy.item)(&repository, &mut outputs));
            if std::panic::catch_unwind(ask).is_err() {
                tracing::error!("a shadow's evaluation panicked");
            }
        }
    }
}

/// Asks the shadow; how long its evaluation took, in nanoseconds, and its signature's names of outputs.
fn ask<P: Protocol>(
    rule: &Rule,
    repository: &Repository,
    mut protocol: P,
    body: &[u8],
    meta: &Meta,
    outputs: &mut Outputs,
) -> Result<(u64, Arc<Served>), Refusal> {
    let which = rule.version.map_or(Which::Default, Which::Version);
    let mut served = repository.find(&rule.target, which).map_err(Refusal::from)?;
    if let Some(other) = drive::choose(&protocol, &served, body)? {
        served = other;
    }
    let asked = protocol.parse(&served, Message { body, meta })?;
    let inputs = protocol.inputs(&served, body)?;
    let start = Instant::now();
    let call = Call { served: &served, rows: asked.rows, inputs: &inputs, priority: 0, deadline: None };
    evaluate::run_here(call, outputs)?;
    drop(inputs);
    Ok((nanos(start.elapsed()), served))
}

impl Pair {
    /// Takes in what became of a copy.
    fn take(
        &self,
        outcome: Result<(u64, Arc<Served>), Refusal>,
        primary: &[Tensor<'static>],
        shadow: &Outputs,
        predict: u64,
    ) {
        let seen = &self.seen;
        let (time, served) = match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => {
                seen.failed.fetch_add(1, Relaxed);
                seen.rest.lock().last_failure = Some(refusal.text);
                return;
            }
        };
        seen.primary_ns.fetch_add(predict, Relaxed);
        seen.shadow_ns.fetch_add(time, Relaxed);
        let compared = compare(primary, shadow.tensors());
        match compared.example {
            None => &seen.same,
            Some(_) => &seen.different,
        }
        .fetch_add(1, Relaxed);
        let mut rest = seen.rest.lock();
        rest.largest = rest.largest.max(compared.largest);
        if let Some((place, example)) = compared.example {
            let outputs = &served.backend.signature().outputs;
            let name = outputs.get(place).map_or("", |output| output.name.as_str());
            if rest.examples.len() == EXAMPLES {
                rest.examples.pop_front();
            }
            rest.examples.push_back(json!({"output": name, "difference": example}));
        }
    }

    /// The comparison so far.
    pub(crate) fn report(&self) -> Value {
        let seen = &self.seen;
        let count = |count: &AtomicU64| count.load(Relaxed);
        let rest = seen.rest.lock();
        json!({
            "model": self.rule.model,
            "shadow": self.rule.target,
            "shadow_version": self.rule.version,
            "share": self.rule.share,
            "same": count(&seen.same),
            "different": count(&seen.different),
            "failed": count(&seen.failed),
            "dropped": count(&seen.dropped),
            "largest_difference": rest.largest,
            "latency_ratio": seen.latency_ratio(),
            "last_failure": rest.last_failure,
            "examples": rest.examples,
        })
    }
}

/// What comparing found.
#[derive(Debug, PartialEq)]
struct Compared {
    largest: f64,
    /// Which output, and what is different there first.
    example: Option<(usize, Value)>,
}

fn compare(primary: &[Tensor<'_>], shadow: &[Tensor<'_>]) -> Compared {
    let mut compared = Compared { largest: 0.0, example: None };
    if primary.len() != shadow.len() {
        let counts = json!({"outputs": primary.len(), "shadow": shadow.len()});
        compared.example = Some((usize::MAX, counts));
        return compared;
    }
    for (place, (one, other)) in primary.iter().zip(shadow).enumerate() {
        let example = tensors(one, other, &mut compared.largest);
        compared.example = compared.example.or(example.map(|example| (place, example)));
    }
    compared
}

/// The first difference of two tensors.
fn tensors(one: &Tensor<'_>, other: &Tensor<'_>, largest: &mut f64) -> Option<Value> {
    if one.dims() != other.dims() {
        return Some(json!({"shape": one.dims(), "shadow": other.dims()}));
    }
    if one.dtype() == DType::Text || other.dtype() == DType::Text {
        let text = |tensor: &Tensor<'_>| {
            tensor.texts().map(|text| text.unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let (one, other) = (text(one), text(other));
        let at = one.iter().zip(&other).position(|(one, other)| one != other);
        let at = at.or((one.len() != other.len()).then_some(0))?;
        return Some(json!({"at": at, "value": one.get(at), "shadow": other.get(at)}));
    }
    let (Some(one), Some(other)) = (one.to_f64s(), other.to_f64s()) else {
        return Some(json!({"type": one.dtype().v2_name(), "shadow": other.dtype().v2_name()}));
    };
    let mut first = None;
    for (at, (one, other)) in one.iter().zip(other.iter()).enumerate() {
        let same = one.to_bits() == other.to_bits() || one == other || one.is_nan() && other.is_nan();
        if same {
            continue;
        }
        let difference = (one - other).abs();
        *largest = largest.max(if difference.is_nan() { f64::INFINITY } else { difference });
        // Also where one of them is no number.
        let is_far = difference.is_nan() || difference > RELATIVE * one.abs().max(other.abs());
        if is_far && first.is_none() {
            first = Some(json!({"at": at, "value": one, "shadow": other}));
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_what_is_wrong_is_said() {
        let rule = |text: &str| text.parse::<Rule>();
        let plain = Rule { model: "a".into(), target: "b".into(), version: None, share: 1.0 };
        assert_eq!(rule("a=b"), Ok(plain.clone()));
        assert_eq!(rule("a=b@0.25"), Ok(Rule { share: 0.25, ..plain.clone() }));
        let own = Rule { target: "a".into(), version: Some(2), share: 0.1, ..plain };
        assert_eq!(rule("a=a/2@0.1"), Ok(own));
        for (text, word) in [
            ("a", "no ="),
            ("a=", "no name"),
            ("=b", "no name"),
            ("a=b@2", "between 0 and 1"),
            ("a=b@x", "share is no number"),
            ("a=b/x", "version is no number"),
            ("a=a", "itself"),
        ] {
            assert!(rule(text).expect_err(text).contains(word), "{text}");
        }
    }

    #[test]
    fn tensors_are_compared_by_shape_value_and_text() {
        let numbers = |all: &[f64]| vec![Tensor::owned(all, &[all.len()]).expect("a tensor")];
        let texts = |all: &[&str]| vec![Tensor::of_texts(all, &[all.len()]).expect("a tensor")];
        let check = |one: &[Tensor<'_>], other: &[Tensor<'_>]| {
            let compared = compare(one, other);
            (compared.largest, compared.example.map(|(_, example)| example["at"].as_u64()))
        };
        let one = numbers(&[1.0, 2.0, f64::NAN]);
        assert_eq!(check(&one, &numbers(&[1.0, 2.0, f64::NAN])), (0.0, None));
        assert_eq!(check(&one, &numbers(&[1.0, 2.5, f64::NAN])), (0.5, Some(Some(1))));
        assert_eq!(check(&one, &numbers(&[1.0, 2.0, 3.0])), (f64::INFINITY, Some(Some(2))));
        let (largest, example) = check(&one, &numbers(&[1.0 + 1e-9, 2.0, f64::NAN]));
        assert!(largest > 0.0 && example.is_none());
        assert_eq!(check(&one, &numbers(&[1.0, 2.0])), (0.0, Some(None)));
        assert_eq!(check(&one, &[]), (0.0, Some(None)));
        assert_eq!(check(&texts(&["a", "b"]), &texts(&["a", "c"])), (0.0, Some(Some(1))));
        assert_eq!(check(&texts(&["a"]), &numbers(&[1.0])), (0.0, Some(Some(0))));
        // A class as an integer and as a float are the same answer.
        let whole = vec![Tensor::owned(&[1_i64, 2, 3], &[3]).expect("a tensor")];
        assert_eq!(check(&whole, &numbers(&[1.0, 2.0, 3.0])), (0.0, None));
    }
}
