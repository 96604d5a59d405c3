//! Argo's names at run time: `inputs.`, `tasks.`, `steps.`, `workflow.`, `item`, and what belongs to one node.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::engine::{Engine, Ix, Node, State};
use crate::model::{Body, Front};
use crate::tags::{Found, Scope};
use crate::text;
use crate::values::{ArtifactRef, Values};

/// Names as one place of a workflow sees them.
pub(super) struct Names<'a> {
    pub(super) engine: &'a Engine,
    /// The group whose members `tasks.` and `steps.` are.
    pub(super) boundary: Option<Ix>,
    /// The node whose inputs `inputs.` are.
    pub(super) own: Option<Ix>,
    pub(super) item: Option<&'a Value>,
    /// A member that the group does not know yet (its own hook asks).
    pub(super) also: Option<Ix>,
    /// Names with values of their own.
    pub(super) extra: BTreeMap<String, Value>,
}

impl<'a> Names<'a> {
    pub(super) fn inside(engine: &'a Engine, boundary: Option<Ix>, item: Option<&'a Value>) -> Self {
        Self { engine, boundary, own: boundary, item, also: None, extra: BTreeMap::new() }
    }

    pub(super) fn of_node(engine: &'a Engine, ix: Ix) -> Self {
        let node = engine.node(ix);
        let mut extra = BTreeMap::new();
        extra.insert("node.name".into(), json!(node.name));
        let retries = node.attempt.unwrap_or(0);
        extra.insert("retries".into(), json!(retries.to_string()));
        Self { engine, boundary: None, own: Some(ix), item: node.item.as_ref(), also: None, extra }
    }

    pub(super) fn inputs(&self) -> Option<&Values> {
        self.own.map(|ix| &self.engine.node(ix).inputs)
    }

    fn input(&self, parts: &[&str]) -> Found {
        let Some(inputs) = self.inputs() else { return Found::Unknown };
        match parts {
            ["parameters"] => Found::Value(Value::String(list_of(&inputs.parameters))),
            ["parameters", name] => {
                inputs.parameters.get(*name).cloned().map_or(Found::Unknown, Found::Value)
            }
            ["artifacts", name, "path"] => match inputs.artifacts.get(*name).and_then(|list| list.first()) {
                Some(artifact) => Found::Value(json!(artifact.path)),
                None => Found::Absent,
            },
            _ => Found::Unknown,
        }
    }

    pub(super) fn member(&self, name: &str) -> Option<Ix> {
        if let Some(ix) = self.also
            && self.engine.node(ix).task.as_ref().is_some_and(|task| task.name == name)
        {
            return Some(ix);
        }
        self.engine.member(self.boundary?, name)
    }

    fn task(&self, name: &str, rest: &[&str]) -> Found {
        let Some(ix) = self.member(name) else {
            return if self.declares(name) { Found::Absent } else { Found::Unknown };
        };
        let node = self.engine.node(ix);
        let some = |text: String| Found::Value(Value::String(text));
        match rest {
            ["id"] => some(node.id.clone()),
            ["name"] => some(node.name.clone()),
            ["status"] => some(node.phase.word().to_owned()),
            ["startedAt"] => some(text::rfc3339(node.started)),
            ["finishedAt"] => node.finished.map_or(Found::Absent, |at| some(text::rfc3339(at))),
            ["exitCode"] => node.outputs.exit_code.map_or(Found::Absent, |code| some(code.to_string())),
            ["hostNodeName"] => some(host(node).to_owned()),
            ["outputs", "exitCode"] => {
                node.outputs.exit_code.map_or(Found::Absent, |code| some(code.to_string()))
            }
            ["outputs", "result"] => node.outputs.result.clone().map_or(Found::Absent, some),
            ["outputs", "parameters"] => some(list_of(&node.outputs.parameters)),
            ["outputs", "parameters", name] => {
                node.outputs.parameters.get(*name).cloned().map_or(Found::Absent, Found::Value)
            }
            _ => Found::Unknown,
        }
    }

    /// The boundary's template has a task of this name, run or not.
    pub(super) fn declares(&self, name: &str) -> bool {
        let template = self.boundary.and_then(|ix| self.engine.node(ix).template);
        match template.map(|at| &self.engine.plan().templates[at].body) {
            Some(Body::Dag(dag)) => dag.tasks.iter().any(|task| task.name == name),
            Some(Body::Steps(groups)) => groups.iter().flatten().any(|task| task.name == name),
            _ => false,
        }
    }

    fn workflow(&self, parts: &[&str]) -> Found {
        let engine = self.engine;
        let identity = &engine.plan().identity;
        let some = |text: String| Found::Value(Value::String(text));
        let Front::Argo(front) = &engine.plan().front else { return Found::Unknown };
        match parts {
            ["name"] => some(identity.name.clone()),
            ["namespace"] => some(identity.namespace.clone()),
            ["uid"] => some(identity.uid.clone()),
            ["status"] => some(engine.workflow_status().to_owned()),
            ["failures"] => some(engine.failures().to_string()),
            ["mainEntrypoint"] => some(front.spec.entrypoint.clone().unwrap_or_default()),
            ["serviceAccountName"] => some(front.spec.service_account_name.clone().unwrap_or_default()),
            ["priority"] => some(front.spec.priority.unwrap_or(0).to_string()),
            ["duration"] => some(format!("{:.6}", (engine.now() - engine.started()) as f64 / 1000.0)),
            ["creationTimestamp"] | ["creationTimestamp", "RFC3339"] => {
                some(text::rfc3339(identity.created_ms))
            }
            ["creationTimestamp", "s"] => some((identity.created_ms / 1000).to_string()),
            ["creationTimestamp", format] => {
                strftime(identity.created_ms, format).map_or(Found::Unknown, some)
            }
            ["parameters"] | ["parameters", "json"] => some(list_of(&front.parameters)),
            ["parameters", name] => front.parameters.get(*name).cloned().map_or(Found::Unknown, Found::Value),
            ["labels" | "annotations", "json"] => {
                let map = if parts[0] == "labels" { &identity.labels } else { &identity.annotations };
                some(json!(map).to_string())
            }
            ["labels", name] => identity.labels.get(*name).cloned().map_or(Found::Unknown, some),
            ["annotations", name] => identity.annotations.get(*name).cloned().map_or(Found::Unknown, some),
            ["outputs", "parameters", name] => {
                engine.globals().parameters.get(*name).cloned().map_or(Found::Absent, Found::Value)
            }
            _ => Found::Unknown,
        }
    }

    fn item(&self, parts: &[&str]) -> Found {
        let Some(mut value) = self.item else { return Found::Unknown };
        for part in parts {
            match value.get(part) {
                Some(inner) => value = inner,
                None => return Found::Unknown,
            }
        }
        Found::Value(value.clone())
    }
}

/// One letter of C's strftime, as Argo offers it.
fn strftime(ms: i64, letter: &str) -> Option<String> {
    let known = letter.len() == 1 && "aAbBcdDefFgGhHIjklLmMnNpPrRsSTuvVwWxXyYzZ".contains(letter);
    let second = jiff::Timestamp::from_second(ms.div_euclid(1000)).ok().filter(|_| known)?;
    jiff::fmt::strtime::format(format!("%{letter}"), &second.to_zoned(jiff::tz::TimeZone::UTC)).ok()
}

fn host(node: &Node) -> &str {
    match &node.state {
        State::Pod(pod) => &pod.host,
        _ => "",
    }
}

/// `[{name, value}, ...]`, as Argo prints all parameters.
fn list_of(parameters: &BTreeMap<String, Value>) -> String {
    let list = parameters.iter().map(|(name, value)| json!({"name": name, "value": text::plain(value)}));
    Value::Array(list.collect()).to_string()
}

impl Scope for Names<'_> {
    fn lookup(&self, name: &str) -> Found {
        if let Some(value) = self.extra.get(name) {
            return Found::Value(value.clone());
        }
        // A map label may hold dots: `workflow.labels.a.b/c`.
        for prefix in ["workflow.labels.", "workflow.annotations."] {
            if let Some(key) = name.strip_prefix(prefix) {
                let kind = prefix.split('.').nth(1).unwrap_or_default();
                return self.workflow(&[kind, key]);
            }
        }
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["inputs", rest @ ..] => self.input(rest),
            ["tasks" | "steps", name, rest @ ..] => self.task(name, rest),
            ["workflow", rest @ ..] => self.workflow(rest),
            ["item", rest @ ..] => self.item(rest),
            _ => Found::Unknown,
        }
    }

    fn tree(&self) -> Value {
        let mut tree = Map::new();
        let inputs = self.inputs().map_or_else(Values::default, Clone::clone);
        tree.insert(
            "inputs".into(),
            json!({"parameters": inputs.parameters, "artifacts": artifacts_tree(&inputs)}),
        );
        let mut tasks = Map::new();
        if let Some(boundary) = self.boundary {
            if let Some(at) = self.engine.node(boundary).template {
                for name in names_in(&self.engine.plan().templates[at].body) {
                    tasks.insert(name.to_owned(), json!({"outputs": {"parameters": {}, "artifacts": {}}}));
                }
            }
            for (name, ix) in self.engine.members(boundary) {
                tasks.insert(name.to_owned(), task_tree(self.engine.node(ix)));
            }
        }
        if let Some(ix) = self.also {
            let node = self.engine.node(ix);
            if let Some(task) = &node.task {
                tasks.insert(task.name.clone(), task_tree(node));
            }
        }
        tree.insert("steps".into(), Value::Object(tasks.clone()));
        tree.insert("tasks".into(), Value::Object(tasks));
        tree.insert("workflow".into(), self.workflow_tree());
        if let Some(item) = self.item {
            tree.insert("item".into(), item.clone());
        }
        for (name, value) in &self.extra {
            place(&mut tree, name, value);
        }
        Value::Object(tree)
    }
}

impl Names<'_> {
    fn workflow_tree(&self) -> Value {
        let plan = self.engine.plan();
        let Front::Argo(front) = &plan.front else { return Value::Null };
        json!({
            "name": plan.identity.name,
            "namespace": plan.identity.namespace,
            "uid": plan.identity.uid,
            "parameters": front.parameters,
            "labels": plan.identity.labels,
            "annotations": plan.identity.annotations,
            "status": self.engine.workflow_status(),
            "failures": self.engine.failures().to_string(),
            "creationTimestamp": text::rfc3339(plan.identity.created_ms),
            "outputs": {"parameters": self.engine.globals().parameters},
        })
    }
}

fn names_in(body: &Body) -> Vec<&str> {
    match body {
        Body::Dag(dag) => dag.tasks.iter().map(|task| task.name.as_str()).collect(),
        Body::Steps(groups) => groups.iter().flatten().map(|task| task.name.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn task_tree(node: &Node) -> Value {
    json!({
        "id": node.id,
        "status": node.phase.word(),
        "startedAt": text::rfc3339(node.started),
        "exitCode": node.outputs.exit_code.map(|code| code.to_string()),
        "outputs": {
            "result": node.outputs.result,
            "exitCode": node.outputs.exit_code.map(|code| code.to_string()),
            "parameters": node.outputs.parameters,
            "artifacts": artifacts_tree(&node.outputs),
        },
    })
}

fn artifacts_tree(values: &Values) -> Value {
    let first =
        |list: &Vec<ArtifactRef>| list.first().and_then(|artifact| serde_json::to_value(artifact).ok());
    values.artifacts.iter().map(|(name, list)| (name.clone(), first(list).unwrap_or_default())).collect()
}

fn place(tree: &mut Map<String, Value>, name: &str, value: &Value) {
    match name.split_once('.') {
        None => {
            tree.insert(name.to_owned(), value.clone());
        }
        Some((first, rest)) => {
            let inner = tree.entry(first.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                place(inner, rest, value);
            }
        }
    }
}
