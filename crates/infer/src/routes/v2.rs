//! The Open Inference Protocol over HTTP: health, metadata, the repository API and `infer`.
//!
//! KServe, Triton and MLServer differ in details: bodies of health calls are always KServe's, whose client reads
//! them; an id is invented for KServe's clients, which expect one.
//!
//! Not here: the bodies of `infer` (`codecs::v2`).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use codecs::call::{Call, View};
use codecs::json::push_text;
use codecs::v1::write_error;
use codecs::v2::{self, Head};
use models::{DType, Outputs, TensorSpec};
use uuid::fmt::Hyphenated;

use super::classes::{self, Chosen};
use super::v1::malformed;
use super::{Routed, get, method_not_allowed, no_such_model, no_such_path, percent_decoded, ready};
use crate::bind::{Binder, wrong};
use crate::control::Order;
use crate::evaluate::Inputs;
use crate::exchange::{Asked, JSON, Kind, Message, Protocol, Reply};
use crate::http::Verb;
use crate::metrics::{Api, Entry};
use crate::refusal::{Reason, Refusal};
use crate::repository::{NotServed, Repository, State, Which};
use crate::served::{Personality, Served};
use crate::shared::Shared;

/// What this server does beyond the protocol's required part, in the protocol's words.
pub(crate) const EXTENSIONS: [&str; 4] =
    ["model_repository", "binary_tensor_data", "classification", "model_configuration"];
/// KServe's clients look for their own word.
pub(crate) const KSERVE_EXTENSION: &str = "model_repository_extension";

/// `/v2` and what follows.
pub(super) fn route(verb: Verb, rest: &str, shared: &Shared, reply: &mut Reply) -> Routed {
    match rest {
        "" | "/" => get(verb, reply, server),
        "/health/live" => get(verb, reply, |out| out.extend_from_slice(b"{\"live\":true}")),
        "/health/ready" => {
            let is_ready = shared.is_ready();
            reply.status = if is_ready { 200 } else { 503 };
            get(verb, reply, |out| {
                let text: &[u8] = if is_ready { b"{\"ready\":true}" } else { b"{\"ready\":false}" };
                out.extend_from_slice(text);
            })
        }
        "/models" => super::v1::list(verb, &shared.repository, reply),
        _ => match rest.strip_prefix("/models/") {
            Some(rest) => model(verb, rest, shared, reply),
            None => repository(verb, rest, reply),
        },
    }
}

fn server(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"name\":\"slipway\",\"version\":\"");
    out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    out.extend_from_slice(b"\",\"extensions\":[");
    for extension in EXTENSIONS {
        push_text(out, extension);
        out.push(b',');
    }
    push_text(out, KSERVE_EXTENSION);
    out.extend_from_slice(b"]}");
}

/// `/v2/repository/…`.
fn repository(verb: Verb, rest: &str, reply: &mut Reply) -> Routed {
    let order =
        match rest.strip_prefix("/repository/") {
            Some("index") => Some(Order::Index),
            Some(rest) => rest.strip_prefix("models/").and_then(|rest| rest.split_once('/')).and_then(
                |(name, action)| match action {
                    "load" => Some(Order::Load(percent_decoded(name).into_owned())),
                    "unload" => Some(Order::Unload(percent_decoded(name).into_owned())),
                    _ => None,
                },
            ),
            None => None,
        };
    match (order, verb) {
        (Some(order), Verb::Post) => Routed::Admin(order),
        (Some(_), _) => method_not_allowed(reply),
        (None, _) => no_such_path(reply),
    }
}

/// The version in a path or message; an error for what is no number.
pub(crate) fn which(version: &str) -> Result<Which<'_>, Refusal> {
    if version.is_empty() {
        return Ok(Which::Default);
    }
    let number = version.parse().map(Which::Version);
    number.map_err(|_| {
        let shown: String = version.chars().take(40).collect();
        Refusal::new(
            Reason::Input,
            format!("failed to get model version from specified version string {shown:?}"),
        )
    })
}

/// `/v2/models/…`.
fn model(verb: Verb, rest: &str, shared: &Shared, reply: &mut Reply) -> Routed {
    let repository = &shared.repository;
    let (name, mut action) = rest.split_once('/').unwrap_or((rest, ""));
    let name = percent_decoded(name);
    let mut version = "";
    if let Some(rest) = action.strip_prefix("versions/") {
        (version, action) = rest.split_once('/').unwrap_or((rest, ""));
    }
    let which = match which(version) {
        Ok(which) => which,
        Err(refusal) => {
            reply.status = refusal.http();
            write_error(&mut reply.body, &refusal.text);
            return Routed::Answered;
        }
    };
    let served = match repository.find(&name, which) {
        Ok(served) => served,
        // It answers whoever calls it, which is what the question is about.
        Err(NotServed::Asleep(name)) if action == "ready" => {
            return get(verb, reply, |out| ready(out, &name));
        }
        Err(NotServed::Asleep(name)) => return Routed::Asleep(name),
        Err(NotServed::NotReady { .. }) if action == "ready" => {
            reply.status = 503;
            return get(verb, reply, |out| {
                out.extend_from_slice(b"{\"name\":");
                push_text(out, &name);
                out.extend_from_slice(b",\"ready\":false}");
            });
        }
        Err(error) => return no_such_model(error, shared.personality, reply),
    };
    match (action, verb) {
        ("", _) => get(verb, reply, |out| metadata(out, &served, &versions(repository, &served))),
        ("ready", _) => get(verb, reply, |out| ready(out, &served.name)),
        ("config", _) => get(verb, reply, |out| config(out, &served)),
        ("infer", Verb::Post) => Routed::Call(served, Kind::V2),
        ("infer", _) => method_not_allowed(reply),
        _ => no_such_path(reply),
    }
}

/// The versions of a model that answer.
pub(crate) fn versions(repository: &Repository, served: &Served) -> Vec<String> {
    let known = repository.status(&served.name).map(|model| model.versions).unwrap_or_default();
    let ready = known.into_iter().filter(|version| version.state == State::Available);
    ready.filter_map(|version| version.version).map(|number| number.to_string()).collect()
}

fn metadata(out: &mut Vec<u8>, served: &Served, versions: &[String]) {
    out.extend_from_slice(b"{\"name\":");
    push_text(out, &served.name);
    out.extend_from_slice(b",\"versions\":[");
    for (index, version) in versions.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_text(out, version);
    }
    out.extend_from_slice(b"],\"platform\":");
    push_text(out, &served.about.platform);
    out.extend_from_slice(b",\"inputs\":");
    specs(out, &served.backend.signature().inputs);
    out.extend_from_slice(b",\"outputs\":");
    specs(out, &served.backend.signature().outputs);
    out.push(b'}');
}

/// What there is to say in the words of Triton's `ModelConfig`: name, platform, tensors.
fn config(out: &mut Vec<u8>, served: &Served) {
    out.extend_from_slice(b"{\"name\":");
    push_text(out, &served.name);
    for key in ["platform", "backend"] {
        out.extend_from_slice(format!(",\"{key}\":").as_bytes());
        push_text(out, &served.about.platform);
    }
    out.extend_from_slice(b",\"max_batch_size\":0");
    let signature = served.backend.signature();
    for (key, specs) in [("input", &signature.inputs), ("output", &signature.outputs)] {
        out.extend_from_slice(format!(",\"{key}\":[").as_bytes());
        for (index, spec) in specs.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
            push_text(out, &spec.name);
            let kind = match spec.dtype {
                DType::Text => "STRING",
                other => other.v2_name(),
            };
            out.extend_from_slice(format!(",\"data_type\":\"TYPE_{kind}\",\"dims\":").as_bytes());
            dims(out, spec);
        }
        out.push(b']');
    }
    out.push(b'}');
}

fn dims(out: &mut Vec<u8>, spec: &TensorSpec) {
    out.push(b'[');
    for (place, dim) in spec.shape().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        out.extend_from_slice(format!("{comma}{dim}").as_bytes());
    }
    out.extend_from_slice(b"]}");
}

fn specs(out: &mut Vec<u8>, specs: &[TensorSpec]) {
    out.push(b'[');
    for (index, spec) in specs.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"name\":" } else { b",{\"name\":" });
        push_text(out, &spec.name);
        out.extend_from_slice(b",\"datatype\":");
        push_text(out, spec.dtype.v2_name());
        out.extend_from_slice(b",\"shape\":");
        dims(out, spec);
    }
    out.push(b']');
}

/// Which outputs an answer has, in which order.
pub(crate) fn select(served: &Served, view: View<'_>, order: &mut Vec<Chosen>) -> Result<(), Refusal> {
    let specs = &served.backend.signature().outputs;
    order.clear();
    if view.wanted().len() == 0 {
        order.extend((0..specs.len()).map(|place| Chosen { place, classes: 0 }));
        return Ok(());
    }
    for (name, wanted) in view.wanted() {
        let place = specs.iter().position(|spec| spec.name == name);
        let place = place.ok_or_else(|| {
            let has: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
            wrong(served, &format!("unexpected inference output '{name}', it has {has:?}"))
        })?;
        order.push(Chosen { place, classes: wanted.classes });
    }
    Ok(())
}

/// What a request says about itself.
pub(crate) fn asked(rows: usize, view: View<'_>) -> Asked {
    let parameters = view.parameters();
    let timeout = (parameters.timeout_us > 0).then(|| Duration::from_micros(parameters.timeout_us));
    Asked { rows, priority: u32::try_from(parameters.priority).unwrap_or(u32::MAX), timeout }
}

/// The text of a version; empty for none.
pub(crate) fn version_text(served: &Served, buffer: &mut String) {
    use std::fmt::Write as _;
    buffer.clear();
    if let Some(version) = served.version {
        let _ = write!(buffer, "{version}");
    }
}

/// `infer`.
#[derive(Debug, Default)]
pub(crate) struct V2 {
    call: Call,
    binder: Binder,
    order: Vec<Chosen>,
    /// Texts of classes.
    made: Outputs,
    version: String,
    ids: Ids,
}

impl Protocol for V2 {
    fn way(&self) -> (Api, Entry) {
        (Api::Infer, Entry::Rest)
    }

    fn parse(&mut self, served: &Served, message: Message<'_>) -> Result<Asked, Refusal> {
        v2::decode(message.body, message.meta.json_len, &mut self.call).map_err(malformed)?;
        let view = self.call.view(message.body);
        select(served, view, &mut self.order)?;
        let rows = self.binder.bind(served, view)?;
        Ok(asked(rows, view))
    }

    fn inputs<'a>(&'a self, served: &'a Served, body: &'a [u8]) -> Result<Inputs<'a>, Refusal> {
        self.binder.inputs(served, self.call.view(body))
    }

    fn write(
        &mut self,
        served: &Served,
        body: &[u8],
        outputs: &Outputs,
        reply: &mut Reply,
    ) -> Result<(), Refusal> {
        let view = self.call.view(body);
        version_text(served, &mut self.version);
        let id = match view.id() {
            "" if served.personality == Personality::Kserve => self.ids.next(),
            id => id,
        };
        let specs = &served.backend.signature().outputs;
        let chosen = classes::tensors(&self.order, outputs, &mut self.made)?.map(|(place, tensor)| {
            let name = specs[place].name.as_str();
            (name, tensor, view.is_binary(name))
        });
        let head = Head { model: &served.name, version: &self.version, id };
        if let Some(length) = v2::encode(&mut reply.body, head, chosen) {
            reply.kind = "application/octet-stream";
            reply.header("inference-header-content-length", itoa::Buffer::new().format(length));
        } else {
            reply.kind = JSON;
        }
        Ok(())
    }

    fn refuse(&mut self, _served: Option<&Served>, refusal: &Refusal, reply: &mut Reply) {
        write_error(&mut reply.body, &refusal.text);
    }

    fn shrink(&mut self) {
        self.call.clear();
        self.binder.shrink();
    }
}

/// Ids for requests that have none, in the form of a random UUID. They tell requests apart and are no secret.
#[derive(Debug)]
pub(crate) struct Ids {
    state: u64,
    text: [u8; Hyphenated::LENGTH],
}

impl Default for Ids {
    fn default() -> Self {
        Self { state: RandomState::new().hash_one(0), text: [0; Hyphenated::LENGTH] }
    }
}

impl Ids {
    pub(crate) fn next(&mut self) -> &str {
        let random = u128::from(self.word()) << 64 | u128::from(self.word());
        let id = uuid::Builder::from_random_bytes(random.to_ne_bytes()).into_uuid();
        id.hyphenated().encode_lower(&mut self.text)
    }

    /// SplitMix64.
    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_ids_are_uuids_and_differ() {
        let mut ids = Ids::default();
        let one = ids.next().to_owned();
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
        assert_ne!(one, ids.next());
    }
}
