//! What only pods have: logs, streams, being bound to a node, eviction.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};

use super::write::{self, Part, Target};
use crate::error::{ApiError, Result};
use crate::http::{self as wire, Ctx};
use crate::object;
use crate::resource::Resource;
use crate::streams::{LogOptions, StreamError};
use crate::{storage, streams};

fn target<'a>(ctx: &'a Ctx, resource: &'a Resource, name: &'a str) -> Target<'a> {
    Target { resource, namespace: &ctx.info.namespace, name, part: Part::Internal }
}

/// The container that a request means.
///
/// # Errors
/// `BadRequest` in upstream's words when there is no such container, or several and none named.
pub fn container(ctx: &Ctx, pod: &Value) -> Result<String> {
    let wanted = ctx.query.get("container");
    let names = |field: &str| -> Vec<String> {
        object::items(pod, &format!("/spec/{field}"))
            .iter()
            .map(|one| object::text(one, "/name").to_owned())
            .collect()
    };
    let (own, init, extra) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = object::name(pod);
    if wanted.is_empty() {
        let annotated = object::text(pod, "/metadata/annotations/kubectl.kubernetes.io~1default-container");
        return match own.as_slice() {
            [one] => Ok(one.clone()),
            _ if own.iter().any(|one| one == annotated) => Ok(annotated.to_owned()),
            many => {
                let mut text = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    many.join(" ")
                );
                if !init.is_empty() {
                    text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(ApiError::bad_request(text))
            }
        };
    }
    if own.iter().chain(&init).chain(&extra).any(|one| one == wanted) {
        return Ok(wanted.to_owned());
    }
    Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
}

fn check_placed(pod: &Value) -> Result<()> {
    if object::text(pod, "/spec/nodeName").is_empty() {
        let name = object::name(pod);
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(())
}

fn stream_error(error: StreamError, pod: &str) -> ApiError {
    match error {
        StreamError::NotReady(text) => ApiError::bad_request(text),
        StreamError::NotFound(text) => ApiError::not_found_text(text),
        StreamError::Failed(text) => ApiError::internal(format!("pod {pod}: {text}")),
    }
}

fn pod_streams(ctx: &Ctx) -> Result<std::sync::Arc<dyn streams::PodStreams>> {
    ctx.server
        .streams
        .get()
        .cloned()
        .ok_or_else(|| ApiError::unavailable("no node serves this pod's streams yet"))
}

/// Answers with a container's log.
///
/// # Errors
/// No such pod or container, or nothing of it to show yet.
pub async fn log(ctx: &Ctx, resource: &Resource) -> Result<Response<Body>> {
    let (pod, _) = write::read(ctx, target(ctx, resource, &ctx.info.name))?;
    let container = container(ctx, &pod)?;
    let count = |key: &str| -> Result<Option<u64>> {
        match ctx.query.int(key)? {
            None => Ok(None),
            Some(value) => u64::try_from(value).map(Some).map_err(|_| {
                let error =
                    crate::field::FieldError::invalid(key, value, "must be greater than or equal to 0");
                ApiError::invalid("", "PodLogOptions", &ctx.info.name, vec![error])
            }),
        }
    };
    let since_time = match ctx.query.get("sinceTime") {
        "" => None,
        text => {
            Some(text.parse::<jiff::Timestamp>().map_err(|error| ApiError::bad_request(error.to_string()))?)
        }
    };
    let options = LogOptions {
        container: container.clone(),
        follow: ctx.query.flag("follow"),
        previous: ctx.query.flag("previous"),
        timestamps: ctx.query.flag("timestamps"),
        tail_lines: count("tailLines")?,
        limit_bytes: count("limitBytes")?,
        since_seconds: count("sinceSeconds")?,
        since_time,
    };
    check_waiting(&pod, &container, options.previous)?;
    let stream =
        pod_streams(ctx)?.logs(&pod, options).await.map_err(|error| stream_error(error, &ctx.info.name))?;
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Upstream's refusal while there is no log.
fn check_waiting(pod: &Value, container: &str, previous: bool) -> Result<()> {
    let name = object::name(pod);
    if object::text(pod, "/spec/nodeName").is_empty() {
        return check_placed(pod);
    }
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let statuses = lists.iter().flat_map(|list| object::items(pod, &format!("/status/{list}")));
    let Some(status) = statuses.into_iter().find(|one| object::text(one, "/name") == container) else {
        return Ok(());
    };
    if previous && status.pointer("/lastState/terminated").is_none() {
        return Err(ApiError::bad_request(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        )));
    }
    let has_run = status.pointer("/lastState/terminated").is_some();
    let reason = object::text(status, "/state/waiting/reason");
    if status.pointer("/state/waiting").is_some() && !has_run {
        let why = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
                "trying and failing to pull image".to_owned()
            }
            "" => "waiting to start".to_owned(),
            reason => format!("waiting to start: {reason}"),
        };
        return Err(ApiError::bad_request(format!("container {container:?} in pod {name:?} is {why}")));
    }
    Ok(())
}

/// Opens exec, attach or port-forward.
///
/// # Errors
/// No such pod or container; a request that is no WebSocket upgrade.
pub async fn stream(ctx: &Ctx, resource: &Resource, upgrade: Option<OnUpgrade>) -> Result<Response<Body>> {
    let (pod, _) = write::read(ctx, target(ctx, resource, &ctx.info.name))?;
    check_placed(&pod)?;
    let kind = ctx.info.subresource.as_str();
    let container = if kind == "portforward" { String::new() } else { container(ctx, &pod)? };
    let is_over = matches!(object::text(&pod, "/status/phase"), "Succeeded" | "Failed");
    if is_over && kind != "portforward" {
        let text = format!(
            "cannot exec into a container in a completed pod; current phase is {}",
            object::text(&pod, "/status/phase")
        );
        return Err(ApiError::bad_request(text));
    }
    let node = pod_streams(ctx)?;
    streams::open(ctx, node, pod, container, upgrade)
}

/// Gives a pod its node; once.
///
/// # Errors
/// `Conflict` when it has one.
pub async fn bind(ctx: &Ctx, resource: &Resource, name: &str, body: Bytes) -> Result<Response<Body>> {
    let binding = wire::parse_object(&ctx.headers, &body)?;
    let node = object::text(&binding, "/target/name").to_owned();
    if node.is_empty() {
        let error = crate::field::FieldError::required("target.name", "");
        return Err(ApiError::invalid("", "Binding", name, vec![error]));
    }
    write::update(ctx, target(ctx, resource, name), |pod| {
        let conflict = |why: String| Err(ApiError::conflict("", "pods/binding", name, &why));
        let placed = object::text(pod, "/spec/nodeName");
        if object::is_terminating(pod) {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        if !placed.is_empty() {
            return conflict(format!("pod {name} is already assigned to node {placed:?}"));
        }
        let mut out = pod.clone();
        object::section(&mut out, "spec").insert("nodeName".into(), node.as_str().into());
        for (key, value) in
            binding.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten()
        {
            let annotations = object::meta_mut(&mut out).entry("annotations").or_insert_with(|| json!({}));
            annotations[key] = value.clone();
        }
        Ok(out)
    })
    .await?;
    set_scheduled(ctx, resource, name).await?;
    Ok(created())
}

async fn set_scheduled(ctx: &Ctx, resource: &Resource, name: &str) -> Result<()> {
    let target = Target { part: Part::Status, ..target(ctx, resource, name) };
    write::update(ctx, target, |pod| {
        let mut out = pod.clone();
        let mut all = object::items(pod, "/status/conditions").to_vec();
        all.retain(|one| object::text(one, "/type") != "PodScheduled");
        all.push(json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": object::now(),
        }));
        object::section(&mut out, "status").insert("conditions".into(), all.into());
        Ok(out)
    })
    .await
    .map(drop)
}

fn created() -> Response<Body> {
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    wire::encode(StatusCode::CREATED, &status, crate::request::Accept::default())
}

/// Deletes a pod unless a disruption budget forbids it for now.
///
/// # Errors
/// `TooManyRequests` while the budget is spent.
pub async fn evict(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    let eviction = wire::parse_object(&ctx.headers, &body)?;
    let name = &ctx.info.name;
    let (pod, _) = write::read(ctx, target(ctx, resource, name))?;
    let labels = object::meta(&pod).and_then(|meta| meta.get("labels")).and_then(Value::as_object);
    let prefix = format!("/policy/poddisruptionbudgets/{}/", ctx.info.namespace);
    for budget in storage::read_all(&ctx.server.store, &prefix) {
        let requirements = budget.pointer("/spec/selector").and_then(crate::selectors::from_selector_object);
        let is_covered = requirements.is_some_and(|all| crate::selectors::labels_match(&all, labels));
        if is_covered && object::int(&budget, "/status/disruptionsAllowed").unwrap_or(0) < 1 {
            let text = "Cannot evict pod as it would violate the pod's disruption budget.";
            return Err(ApiError::too_many(text, 10));
        }
    }
    let options = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    let options = serde_json::to_vec(&options).map_err(ApiError::internal)?;
    super::delete::delete(ctx, resource, Bytes::from(options)).await?;
    Ok(created())
}
