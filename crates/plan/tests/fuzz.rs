//! Specs that were written by nobody: mutations of real ones compile or are refused by a text, and what compiles
//! ends or waits, without a panic, whatever its pods answer. And the journal alone gives the same state again.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose; `make fuzz` sets both.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::workflow::KfpRun;
use plan::engine::{Outcome, PodEnd};
use plan::order::PodOrder;
use plan::{Action, Engine, Event, Identity, Plan};
use pod_protocol::launch::{LaunchReport, UploadedArtifact};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Events after which a workflow is left alone: a mutated loop may be long, and legal.
const EVENTS_MAX: usize = 120;

fn identity() -> Identity {
    Identity { name: "wf".into(), namespace: "team".into(), uid: "u".into(), ..Identity::default() }
}

/// Most of what Argo's language has, small.
fn argo_sample() -> Value {
    json!({
        "entrypoint": "main", "onExit": "echo", "parallelism": 3,
        "arguments": {"parameters": [{"name": "list", "value": "[1, 2, {\"a\": \"b\"}]"}, {"name": "n", "value": "2"}]},
        "templates": [
            {"name": "main", "steps": [
                [{"name": "one", "template": "echo", "arguments": {"parameters": [{"name": "m", "value": "{{workflow.parameters.n}}"}]}}],
                [{"name": "two", "template": "say", "when": "{{steps.one.outputs.result}} == 2 && 'a' != b",
                  "withParam": "{{workflow.parameters.list}}", "arguments": {"parameters": [{"name": "m", "value": "{{item.a}}"}]}},
                 {"name": "three", "template": "graph", "withItems": [1, "x", [2]]},
                 {"name": "four", "template": "echo", "withSequence": {"start": "1", "end": "{{workflow.parameters.n}}", "format": "%02d"}}]]},
            {"name": "graph", "failFast": false, "dag": {"tasks": [
                {"name": "a", "template": "say"},
                {"name": "b", "depends": "a.Succeeded || a.Failed", "template": "wait"},
                {"name": "c", "dependencies": ["a"], "template": "echo", "hooks": {"h": {"expression": "tasks.c.status == 'Running'", "template": "say"}},
                 "continueOn": {"failed": true}, "arguments": {"artifacts": [{"name": "in", "from": "{{tasks.a.outputs.artifacts.out}}"}]}}]}},
            {"name": "wait", "suspend": {"duration": "5s"}},
            {"name": "say", "retryStrategy": {"limit": 2, "retryPolicy": "Always", "backoff": {"duration": "1", "factor": 2, "maxDuration": "1m"}},
             "inputs": {"parameters": [{"name": "m", "default": "x"}]}, "timeout": "30s",
             "script": {"image": "busybox", "command": ["sh"], "source": "echo {{=asInt(inputs.parameters.m) + 1}}"},
             "outputs": {"parameters": [{"name": "p", "valueFrom": {"path": "/p", "default": "d"}, "globalName": "g"}],
                         "artifacts": [{"name": "out", "path": "/out", "optional": true}]}},
            {"name": "echo", "inputs": {"parameters": [{"name": "m", "default": "none"}], "artifacts": [{"name": "in", "path": "/in", "optional": true}]},
             "container": {"image": "busybox", "command": ["echo"], "args": ["{{inputs.parameters.m}}", "{{pod.name}}"]}},
        ],
    })
}

fn yaml(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap()
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The `at`-th node of the tree, depth first.
fn node<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| node(item, at)),
        Value::Object(fields) => fields.values_mut().find_map(|field| node(field, at)),
        _ => None,
    }
}

/// What a place is replaced by; `at` picks, also among the document's own parts.
fn replacement(document: &Value, pick: u8, at: usize) -> Value {
    const TEXTS: [&str; 14] = [
        "",
        "..",
        "{{",
        "{{=",
        "{{item}}",
        "{{=1/0}}",
        "{{=[1][5]}}",
        "{{workflow.parameters.list}}",
        "{{steps.one.outputs.result}}",
        "((((a",
        "a || !b && c.Daemoned",
        "999999999999999999s",
        "\u{0}é\u{1F600}",
        "main",
    ];
    match pick % 8 {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(9e300),
        3 => json!({}),
        4 => json!([[], {"name": null}]),
        5 => json!(at.is_multiple_of(2)),
        6 => node(&mut document.clone(), &mut (at % count(document))).cloned().unwrap_or_default(),
        _ => json!(TEXTS[at % TEXTS.len()]),
    }
}

#[derive(Debug, Clone)]
struct Change {
    place: prop::sample::Index,
    source: prop::sample::Index,
    pick: u8,
}

/// A document that is shown as JSON where it fails.
struct Mutated(Value);

impl std::fmt::Debug for Mutated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn mutations(of: Value) -> impl Strategy<Value = Mutated> {
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>());
    let change = change.prop_map(|(place, source, pick)| Change { place, source, pick });
    prop::collection::vec(change, 1..5).prop_map(move |changes| Mutated(mutated(of.clone(), &changes)))
}

fn mutated(mut document: Value, changes: &[Change]) -> Value {
    for change in changes {
        let put = replacement(&document, change.pick, change.source.index(1 << 20));
        let mut at = change.place.index(count(&document));
        if let Some(found) = node(&mut document, &mut at) {
            *found = put;
        }
    }
    document
}

/// How a pod ends: `luck` chooses between what was asked for, a failure and a report that has nothing of it.
fn pod_end(order: &PodOrder, luck: u8) -> PodEnd {
    let mut report = LaunchReport { version: 1, exit_code: Some(0), ..LaunchReport::default() };
    if luck.is_multiple_of(5) {
        return PodEnd {
            outcome: Outcome::Failed,
            exit_code: Some(1),
            report: Some(report),
            ..PodEnd::default()
        };
    }
    if !luck.is_multiple_of(7) {
        for parameter in &order.launch.output_parameters {
            report.parameters.insert(parameter.name.clone(), "[1]".into());
        }
        for artifact in &order.launch.output_artifacts {
            let uploaded = UploadedArtifact { uri: artifact.uri.clone(), ..UploadedArtifact::default() };
            report.artifacts.insert(artifact.name.clone(), uploaded);
        }
        report.result = Some("2".into());
        report.executor_output = Some(json!({"parameterValues": {"Output": "1"}}));
    }
    PodEnd { outcome: Outcome::Succeeded, exit_code: Some(0), report: Some(report), ..PodEnd::default() }
}

/// Runs a plan until it ends, waits for nobody, or has had enough events.
fn run(plan: Arc<Plan>, luck: &[u8]) {
    let mut engine = Engine::new(plan.clone());
    let (mut now, mut events) = (1_700_000_000_000_i64, Vec::new());
    let mut open: VecDeque<Action> = VecDeque::new();
    let mut next = Some(Event::Begin { at: now });
    while events.len() < EVENTS_MAX {
        if let Some(event) = next.take() {
            assert!(engine.accepts(&event), "{event:?}");
            open.extend(engine.apply(&event));
            events.push(event);
        }
        now = now.saturating_add(1);
        next = match open.pop_front() {
            Some(Action::StartPod { node, token }) => engine.order(node, token).map(|order| {
                let end = Box::new(pod_end(&order, luck[events.len() % luck.len()]));
                Event::Ended { node, token, end, at: now }
            }),
            Some(Action::Lookup { node, token, .. }) => {
                Some(Event::Cache { node, token, hit: None, at: now })
            }
            Some(_) => continue,
            None => match engine.next_timer() {
                Some(due) => {
                    now = now.max(due);
                    Some(Event::Tick { at: now })
                }
                None => break,
            },
        };
        // An attempt that was stopped meanwhile answers to nobody.
        next = next.filter(|event| engine.accepts(event));
    }
    let again = Engine::replay(plan, &events);
    assert_eq!(format!("{:?}", again.status()), format!("{:?}", engine.status()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_workflows_end_or_are_refused(
        spec in mutations(argo_sample()),
        luck in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        if let Ok(plan) = plan::argo::compile(identity(), &spec.0, &BTreeMap::new()) {
            run(Arc::new(plan), &luck);
        }
    }

    #[test]
    fn mutated_pipelines_end_or_are_refused(
        document in mutations(yaml(include_str!("fixtures/iris_pipeline.yaml"))),
        luck in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let run_of =
            KfpRun { run_id: "r".into(), display_name: "r".into(), pipeline_spec: document.0, ..KfpRun::default() };
        if let Ok(plan) = plan::kfp::compile(identity(), &run_of) {
            run(Arc::new(plan), &luck);
        }
    }

    #[test]
    fn small_languages_never_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "a", "b.c", "(", ")", "!", "&&", "||", "==", "!=", "=~", "<", ">=", "'", "\"", "1", "-", "9e999", "{{", "}}", "=", "[", "]",
            "in", "not", "and", "{{item}}", "a.Succeeded", ",", " ", "s", "h", "ms", "\\", "é", "\u{0}", "%", "/", "0", "..", "true",
        ]), 0..14),
    ) {
        let text = words.concat();
        let spaced = words.join(" ");
        for text in [text.as_str(), spaced.as_str()] {
            let _ = plan::when::evaluate(text);
            let _ = plan::text::duration_ms(text);
            let _ = plan::ready::parse(text, &|name| name.len().checked_sub(1));
            let _ = plan::cel_gate::condition(text, &json!({"a": 1}));
            let _ = plan::cel_gate::select(text, "[1, {\"a\": 2}]");
        }
    }
}
