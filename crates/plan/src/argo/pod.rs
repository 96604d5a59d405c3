//! A container or script template, with all its tags resolved, as a pod.

use std::collections::BTreeSet;

use api::workflow::argo;
use pod_protocol::launch::{
    self, Archive, InputArtifact, InputFile, LaunchSpec, OutputArtifact, OutputParameter,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::names::Names;
use crate::engine::{Engine, Ix};
use crate::model::{ArgoFront, Declared, Front};
use crate::order::PodOrder;
use crate::{Error, ids, tags, text};

/// Where a script's source is written: on the launcher's own volume, which every image has.
const SCRIPT: &str = "/var/run/slipway/script";
const ENTRYPOINT_NEEDED: &str = "does not have the command specified: when using the emissary executor you must \
     either explicitly specify the command, or list the image's command in the index: \
     https://argo-workflows.readthedocs.io/en/latest/workflow-executors/#emissary-emissary";

/// The pod of a node's current attempt.
pub fn order(engine: &Engine, ix: Ix) -> Result<PodOrder, Error> {
    let node = engine.node(ix);
    let plan = engine.plan();
    let identity = &plan.identity;
    let Front::Argo(front) = &plan.front else { return Err(Error::new("not an Argo plan")) };
    let Some(template) = node.template.map(|at| &plan.templates[at]) else {
        return Err(Error::new("the node has no template"));
    };
    let Declared::Argo(declared, raw) = &template.declared else {
        return Err(Error::new("not an Argo template"));
    };
    let name = ids::pod_name(&identity.name, &node.name, &template.name);
    let typed = substituted(engine, ix, &name, declared, raw)?;
    let (mut main, script) = match (&typed.container, &typed.script) {
        (Some(Value::Object(container)), _) => (container.clone(), None),
        (None, Some(Value::Object(script))) => {
            let mut container = script.clone();
            let source = container.remove("source");
            (container, Some(source.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()))
        }
        _ => return Err(Error::new(format!("template '{}' has no container", template.name))),
    };
    let mut argv = texts(main.remove("command"), "command")?;
    if argv.is_empty() {
        return Err(Error::new(format!(
            "container \"main\" in template \"{}\", {ENTRYPOINT_NEEDED}",
            template.name
        )));
    }
    argv.extend(texts(main.remove("args"), "args")?);
    let mut launch = launch_spec(engine, ix, &name, &typed, front)?;
    if let Some(source) = script {
        launch.files.push(InputFile { path: SCRIPT.into(), text: source, mode: Some(0o755) });
        argv.push(SCRIPT.into());
    }
    let mut order = PodOrder {
        spec: pod_spec(&typed, &front.spec, &main, identity),
        init_containers: typed.init_containers.clone(),
        sidecars: typed.sidecars.clone(),
        deadline_seconds: deadline(&typed)?,
        template: template.name.clone(),
        node_name: node.name.clone(),
        node_id: node.id.clone(),
        name,
        main,
        argv,
        launch,
        ..PodOrder::default()
    };
    for metadata in [&front.spec.pod_metadata, &typed.metadata].into_iter().flatten() {
        order.labels.extend(metadata.labels.iter().map(|(key, text)| (key.clone(), text.0.clone())));
        order
            .annotations
            .extend(metadata.annotations.iter().map(|(key, text)| (key.clone(), text.0.clone())));
    }
    Ok(order)
}

/// The template with every tag of its own resolved.
fn substituted(
    engine: &Engine,
    ix: Ix,
    pod: &str,
    declared: &argo::Template,
    raw: &Value,
) -> Result<argo::Template, Error> {
    let mut names = Names::of_node(engine, ix);
    names.extra.insert("pod.name".into(), json!(pod));
    for artifact in &declared.inputs.artifacts {
        let path = artifact.path.clone().unwrap_or_default();
        names.extra.insert(format!("inputs.artifacts.{}.path", artifact.name), json!(path));
    }
    for artifact in &declared.outputs.artifacts {
        let path = artifact.path.clone().unwrap_or_default();
        names.extra.insert(format!("outputs.artifacts.{}.path", artifact.name), json!(path));
    }
    for parameter in &declared.outputs.parameters {
        let path = parameter.value_from.as_ref().and_then(|from| from.path.clone()).unwrap_or_default();
        names.extra.insert(format!("outputs.parameters.{}.path", parameter.name), json!(path));
    }
    let mut fields: Map<String, Value> = raw.as_object().cloned().unwrap_or_default();
    // Inputs are bound already; the others are read where they are used.
    for own in ["inputs", "retryStrategy", "hooks", "metrics"] {
        fields.remove(own);
    }
    let done = tags::tree(&Value::Object(fields), &names)?;
    let mut typed = argo::Template::deserialize(&done)
        .map_err(|error| Error::new(format!("template '{}' after substitution: {error}", declared.name)))?;
    typed.inputs = declared.inputs.clone();
    Ok(typed)
}

fn texts(value: Option<Value>, what: &str) -> Result<Vec<String>, Error> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items.iter().map(text::plain).collect()),
        Some(other) => Err(Error::new(format!("{what} must be a list, got {other}"))),
    }
}

fn launch_spec(
    engine: &Engine,
    ix: Ix,
    pod: &str,
    typed: &argo::Template,
    front: &ArgoFront,
) -> Result<LaunchSpec, Error> {
    let node = engine.node(ix);
    let mut spec = LaunchSpec { version: launch::VERSION, ..LaunchSpec::default() };
    for declared in &typed.inputs.artifacts {
        let Some(artifact) = node.inputs.artifacts.get(&declared.name).and_then(|list| list.first()) else {
            continue;
        };
        let path = checked(declared.path.as_deref(), "inputs", &declared.name)?;
        match &artifact.raw {
            Some(data) => spec.files.push(InputFile { path, text: data.clone(), mode: declared.mode }),
            None => spec.input_artifacts.push(InputArtifact {
                name: declared.name.clone(),
                uri: artifact.uri.clone(),
                path,
                archive: if artifact.tar { Archive::TarGz } else { Archive::None },
                optional: declared.optional,
                mode: declared.mode,
            }),
        }
    }
    for parameter in &typed.outputs.parameters {
        let Some(from) = &parameter.value_from else { continue };
        let Some(path) = &from.path else { continue };
        let path = checked(Some(path), "outputs", &parameter.name)?;
        let default = from.default.as_ref().map(|text| text.0.clone());
        spec.output_parameters.push(OutputParameter { name: parameter.name.clone(), path, default });
    }
    for artifact in &typed.outputs.artifacts {
        let path = checked(artifact.path.as_deref(), "outputs", &artifact.name)?;
        spec.output_artifacts.push(OutputArtifact {
            name: artifact.name.clone(),
            path,
            uri: output_uri(engine, pod, artifact)?,
            archive: if is_tar(artifact) { Archive::TarGz } else { Archive::None },
            optional: artifact.optional,
        });
    }
    spec.capture_result = front.captures;
    Ok(spec)
}

/// Whether an output asks to be packed.
pub(super) fn is_tar(artifact: &argo::Artifact) -> bool {
    artifact.archive.as_ref().is_some_and(|archive| archive.get("tar").is_some())
}

/// An absolute path that stays where it is.
fn checked(path: Option<&str>, side: &str, name: &str) -> Result<String, Error> {
    let path = path.unwrap_or_default();
    let climbs = path.split(['/', '\\']).any(|part| part == "..");
    if !path.starts_with('/') || climbs || path.contains('\0') {
        return Err(Error::new(format!(
            "{side} '{name}': path {path:?} must be absolute and must not contain '..'"
        )));
    }
    Ok(path.to_owned())
}

/// Where an output artifact goes: its own key, or `<namespace>/<workflow>/<pod>/<name>`.
pub(super) fn output_uri(engine: &Engine, pod: &str, artifact: &argo::Artifact) -> Result<String, Error> {
    if let Some(uri) = artifact.s3.as_ref().map(|s3| s3_uri(engine, s3)).transpose()?.flatten() {
        return Ok(uri);
    }
    let identity = &engine.plan().identity;
    Ok(format!(
        "minio://{}/{}/{}/{pod}/{}",
        identity.bucket, identity.namespace, identity.name, artifact.name
    ))
}

/// An `s3` place as a URI. Keys live below the namespace, whoever wrote them.
pub(super) fn s3_uri(engine: &Engine, s3: &Value) -> Result<Option<String>, Error> {
    let identity = &engine.plan().identity;
    let Some(key) = s3.get("key").and_then(Value::as_str).filter(|key| !key.is_empty()) else {
        return Ok(None);
    };
    let key = key.trim_start_matches('/');
    if key.split(['/', '\\']).any(|part| part == "..") {
        return Err(Error::new(format!("artifact key {key:?} must not contain '..'")));
    }
    let bucket = s3.get("bucket").and_then(Value::as_str).filter(|name| !name.is_empty());
    let bucket = bucket.unwrap_or(&identity.bucket);
    let own = format!("{}/", identity.namespace);
    let prefix = if key.starts_with(&own) { "" } else { &own };
    Ok(Some(format!("minio://{bucket}/{prefix}{key}")))
}

fn deadline(typed: &argo::Template) -> Result<Option<i64>, Error> {
    let seconds = |text: &argo::Text| text::duration_ms(text.as_str()).map(|ms| (ms / 1000).max(1));
    let own = typed.active_deadline_seconds.as_ref().map(seconds).transpose()?;
    let timeout = typed.timeout.as_ref().map(seconds).transpose()?;
    Ok(own.into_iter().chain(timeout).min())
}

/// Fields of the pod's spec: the template's over the workflow's.
fn pod_spec(
    typed: &argo::Template,
    spec: &argo::WorkflowSpec,
    main: &Map<String, Value>,
    identity: &crate::Identity,
) -> Map<String, Value> {
    let mut fields = Map::new();
    let own = |value: &Option<Value>, below: &Option<Value>| value.clone().or_else(|| below.clone());
    let text = |value: &Option<String>, below: &Option<String>| {
        value.clone().or_else(|| below.clone()).filter(|text| !text.is_empty()).map(Value::String)
    };
    let pairs = [
        ("nodeSelector", own(&typed.node_selector, &spec.node_selector)),
        ("tolerations", own(&typed.tolerations, &spec.tolerations)),
        ("affinity", own(&typed.affinity, &spec.affinity)),
        ("securityContext", own(&typed.security_context, &spec.security_context)),
        ("hostAliases", own(&typed.host_aliases, &spec.host_aliases)),
        ("imagePullSecrets", spec.image_pull_secrets.clone()),
        ("dnsPolicy", spec.dns_policy.clone().map(Value::String)),
        ("dnsConfig", spec.dns_config.clone()),
        ("hostNetwork", spec.host_network.map(Value::Bool)),
        ("schedulerName", text(&typed.scheduler_name, &spec.scheduler_name)),
        ("priorityClassName", text(&typed.priority_class_name, &spec.pod_priority_class_name)),
        ("serviceAccountName", text(&typed.service_account_name, &spec.service_account_name)),
        (
            "automountServiceAccountToken",
            typed.automount_service_account_token.or(spec.automount_service_account_token).map(Value::Bool),
        ),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            fields.insert(name.into(), value);
        }
    }
    let volumes = volumes(typed, spec, main, identity);
    if !volumes.is_empty() {
        fields.insert("volumes".into(), Value::Array(volumes));
    }
    fields
}

/// The template's volumes and those of the workflow that some container mounts.
fn volumes(
    typed: &argo::Template,
    spec: &argo::WorkflowSpec,
    main: &Map<String, Value>,
    identity: &crate::Identity,
) -> Vec<Value> {
    let mut mounted = BTreeSet::new();
    let others = typed.init_containers.iter().chain(&typed.sidecars).filter_map(Value::as_object);
    for container in std::iter::once(main).chain(others) {
        for mount in container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten() {
            mounted.extend(mount.get("name").and_then(Value::as_str));
        }
    }
    let name = |volume: &Value| volume.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut volumes = typed.volumes.clone();
    let mut known: BTreeSet<String> = volumes.iter().map(name).collect();
    let claims = spec.volume_claim_templates.iter().map(|claim| {
        let own = claim.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        json!({"name": own, "persistentVolumeClaim": {"claimName": format!("{}-{own}", identity.name)}})
    });
    for volume in spec.volumes.iter().cloned().chain(claims) {
        let own = name(&volume);
        if mounted.contains(own.as_str()) && known.insert(own) {
            volumes.push(volume);
        }
    }
    volumes
}
