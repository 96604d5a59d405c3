//! Argo's names at run time: `inputs.`, `tasks.`, `steps.`, `workflow.`, `item`, and what belongs to one node.

use std::collections::BTreeMap;

use api::workflow::argo;
use serde_json::{Map, Value, json};

use crate::engine::{Engine, Ix, Node, State};
use crate::model::{ArtifactBinding, Binding, Body, Declared, Front, Phase, Repeat, Task};
use crate::tags::{self, Found, Scope, Text};
use crate::values::{ArtifactRef, Values};
use crate::{Error, text, when as conditions};

/// Most items of one loop.
const ITEMS_MAX: usize = 100_000;

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

    fn inputs(&self) -> Option<&Values> {
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

    fn member(&self, name: &str) -> Option<Ix> {
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
    fn declares(&self, name: &str) -> bool {
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

/// A text in a group's template.
pub fn text(
    engine: &Engine,
    boundary: Option<Ix>,
    item: Option<&Value>,
    text: &str,
) -> Result<String, Error> {
    tags::string(text, &Names::inside(engine, boundary, item))
}

/// A text in a node's own template.
pub fn own_text(engine: &Engine, ix: Ix, text: &str) -> Result<String, Error> {
    tags::string(text, &Names::of_node(engine, ix))
}

/// `when`.
pub fn when(
    engine: &Engine,
    boundary: Option<Ix>,
    item: Option<&Value>,
    condition: &str,
) -> Result<bool, Error> {
    conditions::evaluate(&text(engine, boundary, item, condition)?)
}

/// `expression` of a node's hook.
pub fn hook_condition(engine: &Engine, ix: Ix, code: &str) -> Result<bool, Error> {
    let node = engine.node(ix);
    let mut names = Names::inside(engine, node.boundary, node.item.as_ref());
    names.also = Some(ix);
    tags::condition(code, &names)
}

/// `expression` of a workflow's hook.
pub fn workflow_condition(engine: &Engine, code: &str) -> Result<bool, Error> {
    tags::condition(code, &Names::inside(engine, None, None))
}

/// `retryStrategy.expression`.
pub fn retry_condition(engine: &Engine, ix: Ix, last: Ix, code: &str) -> Result<bool, Error> {
    let child = engine.node(last);
    let mut names = Names::of_node(engine, ix);
    let exit_code = child.outputs.exit_code.map_or("-1".to_owned(), |code| code.to_string());
    let seconds = (child.finished.unwrap_or(child.started) - child.started) / 1000;
    names.extra.insert("lastRetry.exitCode".into(), json!(exit_code));
    names.extra.insert("lastRetry.status".into(), json!(child.phase.word()));
    names.extra.insert("lastRetry.duration".into(), json!(seconds.to_string()));
    names.extra.insert("lastRetry.message".into(), json!(child.message));
    tags::condition(code, &names)
}

/// The items of an Argo loop.
pub fn loop_items(
    engine: &Engine,
    boundary: Option<Ix>,
    task: &Task,
    repeat: &Repeat,
) -> Result<Vec<Value>, Error> {
    let names = Names::inside(engine, boundary, None);
    let items = match repeat {
        Repeat::Items(items) => {
            items.iter().map(|item| tags::tree(item, &names)).collect::<Result<Vec<_>, _>>()?
        }
        Repeat::Param(list) => {
            let list = tags::string(list, &names)?;
            serde_json::from_str::<Vec<Value>>(list.trim()).map_err(|_| {
                Error::new(format!("withParam value could not be parsed as a JSON list: {list}"))
            })?
        }
        Repeat::Sequence(sequence) => sequence_items(sequence, &names)?,
        Repeat::Parameter(..) | Repeat::Artifact(..) => Vec::new(),
    };
    if items.len() > ITEMS_MAX {
        return Err(Error::new(format!(
            "'{}' has {} items, at most {ITEMS_MAX} are allowed",
            task.name,
            items.len()
        )));
    }
    Ok(items)
}

fn sequence_items(sequence: &argo::Sequence, names: &Names<'_>) -> Result<Vec<Value>, Error> {
    let read = |what: &str, text: &Option<argo::Text>| -> Result<Option<i64>, Error> {
        let Some(text) = text else { return Ok(None) };
        let text = tags::string(text.as_str(), names)?;
        let number =
            text.trim().parse().map_err(|_| Error::new(format!("withSequence.{what} {text:?} is no number")));
        number.map(Some)
    };
    let start = read("start", &sequence.start)?.unwrap_or(0);
    let count = read("count", &sequence.count)?;
    let end = read("end", &sequence.end)?;
    let numbers: Vec<i64> = match (count, end) {
        (Some(count), None) if count <= ITEMS_MAX as i64 => {
            (0..count).map(|step| start.saturating_add(step)).collect()
        }
        (None, Some(end)) if start.abs_diff(end) <= ITEMS_MAX as u64 => {
            if start <= end {
                (start..=end).collect()
            } else {
                (end..=start).rev().collect()
            }
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(Error::new("withSequence must have one of count and end"));
        }
        _ => return Err(Error::new(format!("withSequence has more than {ITEMS_MAX} items"))),
    };
    let format = sequence.format.as_deref().unwrap_or("%d");
    numbers.into_iter().map(|number| printf(format, number).map(Value::String)).collect()
}

/// Go's `fmt.Sprintf` for one number.
fn printf(format: &str, number: i64) -> Result<String, Error> {
    let bad = || {
        Error::new(format!("withSequence.format {format:?} must have one of %d, %x, %X, %o, with a width"))
    };
    let start = format.find('%').ok_or_else(bad)?;
    let rest = &format[start + 1..];
    let verb = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (width, zero) = (&rest[..verb], rest.starts_with('0'));
    let width: usize = if width.is_empty() { 0 } else { width.parse().map_err(|_| bad())? };
    if width > 100 {
        return Err(bad());
    }
    let digits = match rest[verb..].chars().next() {
        Some('d' | 'v') => number.to_string(),
        Some('x') => format!("{number:x}"),
        Some('X') => format!("{number:X}"),
        Some('o') => format!("{number:o}"),
        _ => return Err(bad()),
    };
    let padded = if zero { format!("{digits:0>width$}") } else { format!("{digits:>width$}") };
    Ok(format!("{}{padded}{}", &format[..start], &rest[verb + 1..]))
}

/// How an item is named: `0:value`, without parentheses; KFP's by number alone.
pub fn item_name(task: &Task, at: u32, item: &Value) -> String {
    if matches!(task.repeat, Some(Repeat::Parameter(..) | Repeat::Artifact(..))) {
        return at.to_string();
    }
    let value = match item {
        Value::Object(fields) => {
            let mut pairs: Vec<String> =
                fields.iter().map(|(name, field)| format!("{name}:{}", text::plain(field))).collect();
            pairs.sort();
            pairs.join(",")
        }
        other => text::plain(other),
    };
    format!("{at}:{}", value.replace(['(', ')'], ""))
}

/// What goes into a use of a template: arguments bound to the declared inputs.
pub fn inputs(
    engine: &Engine,
    boundary: Option<Ix>,
    task: &Task,
    item: Option<&Value>,
    template: usize,
) -> Result<Values, Error> {
    let names = Names::inside(engine, boundary, item);
    let Declared::Argo(declared, _) = &engine.plan().templates[template].declared else {
        return Ok(Values::default());
    };
    let mut inputs = Values::default();
    for parameter in &declared.inputs.parameters {
        let given = task.parameters.iter().find(|(name, _)| *name == parameter.name);
        let mut value = match given {
            Some((_, binding)) => argument(binding, &names)?,
            None => None,
        };
        if value.is_none() {
            value = fallback(parameter, &names)?;
        }
        let Some(value) = value else {
            return Err(Error::new(format!("inputs.parameters.{} was not supplied", parameter.name)));
        };
        let allowed =
            parameter.allowed.is_empty() || parameter.allowed.iter().any(|one| one.as_str() == value);
        if !allowed {
            return Err(Error::new(format!(
                "inputs.parameters.{}: {value:?} is not one of its enum values",
                parameter.name
            )));
        }
        inputs.parameters.insert(parameter.name.clone(), Value::String(value));
    }
    for artifact in &declared.inputs.artifacts {
        let given = task.artifacts.iter().find(|(name, _)| *name == artifact.name);
        let found = match given {
            Some((_, ArtifactBinding::Argo(argument))) => artifact_value(engine, argument, &names)?,
            _ => artifact_value(engine, artifact, &names)?,
        };
        match found {
            Some(mut found) => {
                found.path = artifact.path.clone().unwrap_or_default();
                inputs.artifacts.insert(artifact.name.clone(), vec![found]);
            }
            None if artifact.optional => {}
            None if given
                .is_some_and(|(_, binding)| matches!(binding, ArtifactBinding::Argo(a) if a.optional)) => {}
            None => return Err(Error::new(format!("inputs.artifacts.{} was not supplied", artifact.name))),
        }
    }
    Ok(inputs)
}

fn argument(binding: &Binding, names: &Names<'_>) -> Result<Option<String>, Error> {
    match binding {
        Binding::Text(text) => Ok(match tags::maybe(text, names)? {
            Text::Plain(text) => Some(text),
            Text::Absent => None,
        }),
        Binding::Expression(code) => Ok(match tags::evaluate(code, names)? {
            Value::Null => None,
            value => Some(text::plain(&value)),
        }),
        Binding::Constant(value) => Ok(Some(text::plain(value))),
        _ => Ok(None),
    }
}

fn fallback(parameter: &argo::Parameter, names: &Names<'_>) -> Result<Option<String>, Error> {
    let from = parameter.value_from.as_ref();
    if let Some(code) = from.and_then(|from| from.expression.as_deref()) {
        return argument(&Binding::Expression(code.to_owned()), names);
    }
    if from.is_some_and(|from| from.config_map_key_ref.is_some()) {
        return Err(Error::new(format!(
            "inputs.parameters.{}: valueFrom.configMapKeyRef is not supported yet",
            parameter.name
        )));
    }
    let text = parameter
        .value
        .as_ref()
        .or(parameter.default.as_ref())
        .or(from.and_then(|from| from.default.as_ref()));
    text.map_or(Ok(None), |text| argument(&Binding::Text(text.0.clone()), names))
}

/// What an artifact argument (or a declared artifact with a place of its own) stands for.
pub(super) fn artifact_value(
    engine: &Engine,
    artifact: &argo::Artifact,
    names: &Names<'_>,
) -> Result<Option<ArtifactRef>, Error> {
    if let Some(from) = &artifact.from {
        let inner = from.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
        let mut found = from_name(engine, inner, names)?;
        if let (Some(found), Some(sub)) = (&mut found, &artifact.sub_path) {
            let sub = tags::string(sub, names)?;
            found.uri = format!("{}/{}", found.uri.trim_end_matches('/'), sub.trim_matches('/'));
        }
        return Ok(found);
    }
    if let Some(code) = &artifact.from_expression {
        let value = tags::evaluate(code, names)?;
        return Ok(serde_json::from_value(value).ok().filter(|found: &ArtifactRef| !found.uri.is_empty()));
    }
    if let Some(raw) = &artifact.raw {
        let data = tags::string(&raw.data, names)?;
        return Ok(Some(ArtifactRef { raw: Some(data), ..ArtifactRef::default() }));
    }
    if let Some(s3) = &artifact.s3 {
        let s3 = tags::tree(s3, names)?;
        let uri = super::pod::s3_uri(engine, &s3)?;
        let Some(uri) = uri else { return Ok(None) };
        let tar = artifact.archive.as_ref().is_some_and(|archive| archive.get("tar").is_some());
        return Ok(Some(ArtifactRef { uri, tar, ..ArtifactRef::default() }));
    }
    let others = [
        (artifact.gcs.is_some(), "gcs"),
        (artifact.oss.is_some(), "oss"),
        (artifact.azure.is_some(), "azure"),
        (artifact.git.is_some(), "git"),
        (artifact.hdfs.is_some(), "hdfs"),
        (artifact.http.is_some(), "http"),
        (artifact.artifactory.is_some(), "artifactory"),
    ];
    match others.into_iter().find(|(there, _)| *there) {
        Some((_, what)) => {
            Err(Error::new(format!("artifact '{}': {what} is not supported yet", artifact.name)))
        }
        None => Ok(None),
    }
}

fn from_name(engine: &Engine, name: &str, names: &Names<'_>) -> Result<Option<ArtifactRef>, Error> {
    let unknown = || Error::new(format!("failed to resolve {{{{{name}}}}}"));
    let parts: Vec<&str> = name.split('.').collect();
    let first = |values: &Values, key: &str| values.artifacts.get(key).and_then(|list| list.first()).cloned();
    match parts.as_slice() {
        ["inputs", "artifacts", key] => Ok(names.inputs().and_then(|inputs| first(inputs, key))),
        ["tasks" | "steps", task, "outputs", "artifacts", key] => match names.member(task) {
            Some(ix) => {
                let node = engine.node(ix);
                let found = first(&node.outputs, key);
                match found {
                    None if node.phase == Phase::Succeeded => Ok(None),
                    found => Ok(found),
                }
            }
            None if names.declares(task) => Ok(None),
            None => Err(unknown()),
        },
        ["workflow", "outputs", "artifacts", key] => Ok(first(engine.globals(), key)),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_go_does() {
        assert_eq!(printf("testuser%02X", 10), Ok("testuser0A".into()));
        assert_eq!(printf("%d", -1), Ok("-1".into()));
        assert!(printf("none", 1).is_err() && printf("%s", 1).is_err());
    }
}
