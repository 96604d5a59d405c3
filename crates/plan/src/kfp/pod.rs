//! A container component as a pod: executor input, resolved command, artifacts, resources.

use std::collections::{BTreeMap, BTreeSet};

use api::workflow::ir;
use pod_protocol::launch::{
    self, Archive, InputArtifact, LaunchSpec, OutputArtifact, OutputParameter, PythonEnv,
};
use serde_json::{Map, Value, json};

use super::cache_key::artifact_name;
use super::placeholders::{self, Facts};
use super::resolve::{component, front, with_defaults};
use super::{platform, python};
use crate::engine::{Engine, Ix};
use crate::order::PodOrder;
use crate::values::ArtifactRef;
use crate::{Error, ids};

/// Where a component writes its output parameters.
const PARAMETERS: &str = "/tmp/kfp/outputs";
/// Where the namespace's Python environments are mounted.
pub const PYTHON_CACHE: &str = "/var/cache/slipway-python";

/// The path that the SDK maps a URI to.
pub fn local_path(uri: &str) -> String {
    for (scheme, folder) in [("gs://", "/gcs/"), ("s3://", "/s3/"), ("minio://", "/minio/")] {
        if let Some(rest) = uri.strip_prefix(scheme) {
            return format!("{folder}{rest}");
        }
    }
    match uri.strip_prefix("oci://") {
        Some(rest) => format!("/oci/{}/models", rest.replace('/', "_")),
        None => uri.to_owned(),
    }
}

/// Where a node's outputs go, without a `/` at the end.
pub(super) fn task_root(engine: &Engine, ix: Ix) -> Result<String, Error> {
    let front = front(engine)?;
    let node = engine.node(ix);
    let task = node.task.as_ref().map_or("task", |task| task.name.as_str());
    let root = &front.root;
    Ok(format!("{root}/{}/{}/{task}/{}", front.pipeline_name, front.run_id, node.key))
}

/// The artifacts a node will make, before it runs.
pub(super) fn planned_outputs(engine: &Engine, ix: Ix) -> Result<BTreeMap<String, ArtifactRef>, Error> {
    let root = task_root(engine, ix)?;
    let Some(component) = component(engine, ix) else { return Ok(BTreeMap::new()) };
    let planned = component.output_definitions.artifacts.iter().map(|(name, definition)| {
        let artifact = ArtifactRef {
            name: name.clone(),
            uri: format!("{root}/{name}"),
            kind: kind_of(&definition.artifact_type),
            schema_version: definition.artifact_type.schema_version.clone(),
            metadata: definition.metadata.clone(),
            ..ArtifactRef::default()
        };
        (name.clone(), artifact)
    });
    Ok(planned.collect())
}

/// The name of an artifact's type.
pub(super) fn kind_of(kind: &ir::ArtifactType) -> String {
    if !kind.schema_title.is_empty() {
        return kind.schema_title.clone();
    }
    if kind.instance_schema.is_empty() { "system.Artifact".into() } else { kind.instance_schema.clone() }
}

fn runtime_artifact(artifact: &ArtifactRef, name: &str) -> Value {
    let mut kind = Map::new();
    if artifact.kind.contains('\n') {
        kind.insert("instanceSchema".into(), json!(artifact.kind));
    } else {
        kind.insert("schemaTitle".into(), json!(artifact.kind));
        if !artifact.schema_version.is_empty() {
            kind.insert("schemaVersion".into(), json!(artifact.schema_version));
        }
    }
    let mut value = json!({ "name": name, "type": kind, "uri": artifact.uri });
    value["metadata"] = artifact.metadata.clone().unwrap_or_else(|| json!({}));
    if !artifact.path.is_empty() {
        value["customPath"] = json!(artifact.path);
    }
    value
}

/// The ExecutorInput of a node, as protojson.
pub fn executor_input(engine: &Engine, ix: Ix) -> Result<Value, Error> {
    let Some(component) = component(engine, ix) else { return Err(Error::new("the node has no component")) };
    let node = engine.node(ix);
    let root = task_root(engine, ix)?;
    let mut inputs = Map::new();
    let parameters = with_defaults(component, &node.inputs);
    if !parameters.is_empty() {
        inputs.insert("parameterValues".into(), json!(parameters));
    }
    let artifacts: Map<String, Value> = node
        .inputs
        .artifacts
        .iter()
        .map(|(name, list)| {
            let list: Vec<Value> =
                list.iter().map(|one| runtime_artifact(one, &artifact_name(one))).collect();
            (name.clone(), json!({ "artifacts": list }))
        })
        .collect();
    if !artifacts.is_empty() {
        inputs.insert("artifacts".into(), Value::Object(artifacts));
    }
    let mut outputs = Map::new();
    let files: Map<String, Value> = component
        .output_definitions
        .parameters
        .keys()
        .map(|name| (name.clone(), json!({ "outputFile": format!("{PARAMETERS}/{name}") })))
        .collect();
    if !files.is_empty() {
        outputs.insert("parameters".into(), Value::Object(files));
    }
    let planned: Map<String, Value> = planned_outputs(engine, ix)?
        .iter()
        .map(|(name, artifact)| (name.clone(), json!({ "artifacts": [runtime_artifact(artifact, name)] })))
        .collect();
    if !planned.is_empty() {
        outputs.insert("artifacts".into(), Value::Object(planned));
    }
    outputs.insert("outputFile".into(), json!(format!("{}/output_metadata.json", local_path(&root))));
    Ok(json!({ "inputs": inputs, "outputs": outputs }))
}

/// The pod of a node's current attempt.
pub fn order(engine: &Engine, ix: Ix) -> Result<PodOrder, Error> {
    let front = front(engine)?;
    let plan = engine.plan();
    let node = engine.node(ix);
    let template = node.template.map(|at| plan.templates[at].name.clone()).unwrap_or_default();
    let Some(component) = component(engine, ix) else { return Err(Error::new("the node has no component")) };
    let label = component.executor_label.clone().unwrap_or_default();
    let container = front.executors.get(&label).and_then(|executor| executor.container.as_ref());
    let container = container.ok_or_else(|| Error::new(format!("executor '{label}' is not a container")))?;
    let executor_input = executor_input(engine, ix)?;
    let parameters = with_defaults(component, &node.inputs);
    let run = run_facts(engine, ix)?;
    let facts = Facts { executor_input, parameters, run };
    let layers = python::split(&container.command);
    let command = layers.as_ref().map_or(&container.command, |layers| &layers.inner);
    let mut argv = Vec::new();
    for argument in command.iter().chain(&container.args) {
        argv.extend(placeholders::expand(argument, &facts)?);
    }
    if container.command.is_empty() || argv.is_empty() {
        return Err(Error::new(format!(
            "component '{template}' has no command: the entrypoint of image '{}' is not known, give it as command",
            container.image
        )));
    }
    let one = |text: &str| placeholders::expand(text, &facts).map(|list| list.concat());
    let mut main = Map::new();
    main.insert("name".into(), json!("main"));
    main.insert("image".into(), json!(one(&container.image)?));
    let mut env: Vec<Value> = Vec::new();
    for variable in &container.env {
        env.push(json!({ "name": variable.name, "value": one(&variable.value)? }));
    }
    main.insert("env".into(), Value::Array(env));
    if let Some(resources) = resources(container.resources.as_ref(), &one)? {
        main.insert("resources".into(), resources);
    }
    let launch = launch_spec(engine, ix, component, layers.map(|layers| layers.installs))?;
    let mut order = PodOrder {
        name: ids::pod_name(&plan.identity.name, &node.name, &template),
        python_cache: launch.python.is_some(),
        template,
        node_name: node.name.clone(),
        node_id: node.id.clone(),
        main,
        argv,
        literal: true,
        launch,
        ..PodOrder::default()
    };
    mount_stores(&mut order);
    order.labels.insert(api::workflow::label::RUN_ID.into(), front.run_id.clone());
    let task = node.task.as_ref().map_or("", |task| task.name.as_str());
    order.annotations.insert(api::workflow::label::TASK_NAME.into(), task.to_owned());
    if let Some(config) = front.platform.get(&label) {
        platform::apply(&mut order, config, &facts.parameters)?;
    }
    Ok(order)
}

fn run_facts(engine: &Engine, ix: Ix) -> Result<BTreeMap<String, String>, Error> {
    let front = front(engine)?;
    let node = engine.node(ix);
    let task = node.task.as_ref().map_or("", |task| task.name.as_str());
    let facts = [
        ("pipeline_root", front.root.clone()),
        ("pipeline_job_name", front.display_name.clone()),
        ("pipeline_job_resource_name", engine.plan().identity.name.clone()),
        ("pipeline_job_uuid", front.run_id.clone()),
        ("pipeline_job_create_time_utc", front.created_at.clone()),
        ("pipeline_job_schedule_time_utc", front.scheduled_at.clone()),
        ("pipeline_task_name", task.to_owned()),
        ("pipeline_task_uuid", node.key.to_string()),
    ];
    Ok(facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn launch_spec(
    engine: &Engine,
    ix: Ix,
    component: &ir::Component,
    installs: Option<Vec<Vec<String>>>,
) -> Result<LaunchSpec, Error> {
    let node = engine.node(ix);
    let output_file = format!("{}/output_metadata.json", local_path(&task_root(engine, ix)?));
    let mut folders = BTreeSet::new();
    let mut spec = LaunchSpec { version: launch::VERSION, ..LaunchSpec::default() };
    for (name, list) in &node.inputs.artifacts {
        for artifact in list.iter().filter(|artifact| !artifact.uri.is_empty()) {
            let path =
                if artifact.path.is_empty() { local_path(&artifact.uri) } else { artifact.path.clone() };
            spec.input_artifacts.push(InputArtifact {
                name: name.clone(),
                uri: artifact.uri.clone(),
                path,
                archive: Archive::None,
                optional: false,
                mode: None,
            });
        }
    }
    for name in component.output_definitions.parameters.keys() {
        // Values may come in `output_metadata.json` instead; what is missing in both is found out later.
        let path = format!("{PARAMETERS}/{name}");
        spec.output_parameters.push(OutputParameter {
            name: name.clone(),
            path,
            default: Some(UNSET.into()),
        });
        folders.insert(PARAMETERS.to_owned());
    }
    for (name, artifact) in planned_outputs(engine, ix)? {
        let path = local_path(&artifact.uri);
        folders.extend(parent(&path));
        spec.output_artifacts.push(OutputArtifact {
            name,
            path,
            uri: artifact.uri,
            archive: Archive::None,
            optional: true,
        });
    }
    folders.extend(parent(&output_file));
    spec.folders = folders.into_iter().collect();
    spec.executor_output = Some(output_file);
    spec.python =
        installs.map(|pip_arguments| PythonEnv { cache_folder: PYTHON_CACHE.into(), pip_arguments });
    Ok(spec)
}

/// Stands for an output parameter file that was never written; no user writes a NUL.
pub(super) const UNSET: &str = "\0";

fn parent(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(parent, _)| parent.to_owned()).filter(|parent| !parent.is_empty())
}

/// Volumes for the local images of stores that the pod's paths stand in.
fn mount_stores(order: &mut PodOrder) {
    let launch = &order.launch;
    let inputs = launch.input_artifacts.iter().map(|artifact| artifact.path.as_str());
    let outputs = launch.output_artifacts.iter().map(|artifact| artifact.path.as_str());
    let paths: Vec<&str> = inputs.chain(outputs).chain(launch.folders.iter().map(String::as_str)).collect();
    let used: Vec<&str> = ["minio", "gcs", "s3"]
        .into_iter()
        .filter(|root| paths.iter().any(|path| path.starts_with(&format!("/{root}/"))))
        .collect();
    for root in used {
        let name = format!("kfp-{root}");
        push(&mut order.main, "volumeMounts", json!({ "name": name, "mountPath": format!("/{root}") }));
        push(&mut order.spec, "volumes", json!({ "name": name, "emptyDir": {} }));
    }
}

/// Adds to a list of a map.
pub(super) fn push(map: &mut Map<String, Value>, list: &str, value: Value) {
    let slot = map.entry(list.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(items) = slot {
        items.push(value);
    }
}

fn resources(
    declared: Option<&ir::Resources>,
    one: &dyn Fn(&str) -> Result<String, Error>,
) -> Result<Option<Value>, Error> {
    let Some(declared) = declared else { return Ok(None) };
    let pick = |text: &str, number: Option<f64>, unit: &str| -> Result<Option<String>, Error> {
        if !text.is_empty() {
            return one(text).map(|text| Some(text).filter(|text| !text.is_empty()));
        }
        Ok(number.filter(|number| *number > 0.0).map(|number| format!("{number}{unit}")))
    };
    let (mut limits, mut requests) = (Map::new(), Map::new());
    for (limit, name, text, number, unit) in [
        (true, "cpu", &declared.resource_cpu_limit, declared.cpu_limit, ""),
        (true, "memory", &declared.resource_memory_limit, declared.memory_limit, "G"),
        (false, "cpu", &declared.resource_cpu_request, declared.cpu_request, ""),
        (false, "memory", &declared.resource_memory_request, declared.memory_request, "G"),
    ] {
        if let Some(quantity) = pick(text, number, unit)? {
            let map = if limit { &mut limits } else { &mut requests };
            map.insert(name.into(), json!(quantity));
        }
    }
    if let Some(accelerator) = &declared.accelerator {
        let kind =
            if accelerator.resource_type.is_empty() { &accelerator.kind } else { &accelerator.resource_type };
        let count = match &accelerator.count {
            _ if !accelerator.resource_count.is_empty() => accelerator.resource_count.clone(),
            Some(count) => crate::text::plain(count),
            None => "1".into(),
        };
        limits.insert(one(kind)?, json!(one(&count)?));
    }
    if limits.is_empty() && requests.is_empty() {
        return Ok(None);
    }
    Ok(Some(json!({ "limits": limits, "requests": requests })))
}
