//! The engine's state as `Workflow.status`, with Argo's names.

use std::collections::BTreeMap;

use api::workflow::status::{
    Artifact, Condition, Memoization, NodeFlag, NodeStatus, Outputs, Parameter, S3Location, WorkflowStatus,
};
use serde_json::{Value, json};

use super::{Engine, HookOf, Ix, Kind, Node, State};
use crate::model::{Body, Declared, Phase};
use crate::text::{plain, rfc3339};
use crate::values::{ArtifactRef, Values};

/// Most nodes that the object carries; more are in the journal only.
const NODES_IN_STATUS: usize = 2_000;
/// Most bytes of one parameter's text in the object.
const TEXT_IN_STATUS: usize = 64 * 1024;

impl Engine {
    /// The projection. `nodes_omitted` says how many nodes did not fit.
    pub fn status(&self) -> WorkflowStatus {
        let mut status = WorkflowStatus {
            phase: self.phase.map_or("Pending", Phase::word).to_owned(),
            started_at: self.phase.map(|_| rfc3339(self.started)),
            finished_at: self.finished.map(rfc3339),
            progress: format!("{}/{}", self.pods_done, self.pods_known),
            message: self.message.clone(),
            outputs: outputs(&self.globals, &BTreeMap::new()),
            ..WorkflowStatus::default()
        };
        let running = self.active.iter().any(|ix| self.nodes[*ix].phase == Phase::Running);
        let word = |on: bool| if on { "True" } else { "False" }.to_owned();
        status.conditions.push(Condition { kind: "PodRunning".into(), status: word(running) });
        if self.finished.is_some() {
            status.conditions.push(Condition { kind: "Completed".into(), status: word(true) });
        }
        let mut omitted = 0;
        for (ix, node) in self.nodes.iter().enumerate() {
            if node.hidden {
                continue;
            }
            if status.nodes.len() >= NODES_IN_STATUS {
                omitted += 1;
                continue;
            }
            status.nodes.insert(node.id.clone(), self.node_status(ix, node));
        }
        status.nodes_omitted = (omitted > 0).then_some(omitted);
        status
    }

    fn node_status(&self, ix: Ix, node: &Node) -> NodeStatus {
        let template = node.template.map(|at| &self.plan.templates[at]);
        let kinds = template.map(|template| &template.declared);
        let (input_kinds, output_kinds) = parameter_kinds(kinds);
        let (pod_name, host, memo) = match &node.state {
            State::Pod(pod) => {
                let memo = pod.cache.as_ref().map(|(key, hit)| Memoization {
                    hit: *hit,
                    key: key.fingerprint.clone(),
                    cache_name: key.scope.clone(),
                });
                (pod.pod.clone(), pod.host.clone(), memo)
            }
            _ => (String::new(), String::new(), None),
        };
        let scope = match template {
            Some(template) if template.scope.is_empty() => format!("local/{}", self.plan.identity.name),
            Some(template) => format!("namespaced/{}", template.scope.rsplit('/').next().unwrap_or_default()),
            None => String::new(),
        };
        NodeStatus {
            id: node.id.clone(),
            name: node.name.clone(),
            display_name: node.display.clone(),
            kind: if node.phase == Phase::Error && node.kind == Kind::Skipped {
                self.kind_of(node)
            } else {
                node.kind.word().into()
            },
            template_name: template.map(|template| template.name.clone()).unwrap_or_default(),
            template_scope: scope,
            phase: node.phase.word().into(),
            boundary_id: node.boundary.map(|at| self.nodes[at].id.clone()).unwrap_or_default(),
            message: node.message.clone(),
            started_at: Some(rfc3339(node.started)),
            finished_at: node.finished.map(rfc3339),
            progress: self.progress(ix),
            inputs: outputs(&node.inputs, &input_kinds),
            outputs: outputs(&node.outputs, &output_kinds),
            children: self.shown_children(ix),
            outbound_nodes: self.outbound(ix),
            host_node_name: host,
            attempt: (!pod_name.is_empty()).then(|| node.attempt.unwrap_or(0)),
            pod_name,
            memoization_status: memo,
            task_name: node.task.as_ref().map(|task| task.name.clone()).unwrap_or_default(),
            node_flag: flag(node),
            iteration: node.iteration,
        }
    }

    /// What a node that could not even start would have been.
    fn kind_of(&self, node: &Node) -> String {
        let template = node.task.as_ref().and_then(|task| match task.uses {
            crate::model::Use::At(at) => Some(&self.plan.templates[at].body),
            crate::model::Use::Named(..) => None,
        });
        match template {
            Some(Body::Steps(_)) => "Steps",
            Some(Body::Dag(_)) => "DAG",
            Some(Body::Suspend(_)) => "Suspend",
            _ => "Pod",
        }
        .into()
    }

    fn progress(&self, ix: Ix) -> String {
        // Groups are shown with what is below them; a bound keeps a huge loop from costing its square.
        const WALK_MAX: usize = 10_000;
        let (mut done, mut known, mut open, mut walked) = (0u64, 0u64, vec![ix], 0usize);
        if matches!(self.nodes[ix].state, State::Pod(_)) {
            return format!("{}/1", u8::from(self.nodes[ix].phase.ended()));
        }
        if self.nodes.len() > NODES_IN_STATUS {
            return String::new();
        }
        while let Some(at) = open.pop() {
            walked += 1;
            if walked > WALK_MAX {
                return String::new();
            }
            let node = &self.nodes[at];
            if matches!(node.state, State::Pod(_)) {
                known += 1;
                done += u64::from(node.phase.ended());
            }
            open.extend(&node.children);
        }
        format!("{done}/{known}")
    }

    /// Children as Argo draws them: a step group points at its steps, a finished step at the next group.
    fn shown_children(&self, ix: Ix) -> Vec<String> {
        let node = &self.nodes[ix];
        let mut shown = Vec::new();
        match node.kind {
            // Only the first group hangs below a steps node; the next ones follow the steps.
            Kind::Steps => shown.extend(node.children.first().map(|at| self.nodes[*at].id.clone())),
            Kind::Dag => shown.extend(
                node.children
                    .iter()
                    .filter(|at| self.starts_branch(**at))
                    .map(|at| self.nodes[*at].id.clone()),
            ),
            _ => {
                for child in &node.children {
                    if self.nodes[*child].hidden {
                        shown.extend(self.nodes[*child].children.iter().map(|at| self.nodes[*at].id.clone()));
                    } else {
                        shown.push(self.nodes[*child].id.clone());
                    }
                }
            }
        }
        shown.extend(self.followers(ix));
        shown.extend(node.hook_nodes.iter().map(|at| self.nodes[*at].id.clone()));
        shown
    }

    /// A dag's task that looks at no other.
    fn starts_branch(&self, ix: Ix) -> bool {
        self.nodes[ix].task.as_ref().is_none_or(|task| task.needs.is_empty())
    }

    /// The nodes that come after this one inside the same group.
    fn followers(&self, ix: Ix) -> Vec<String> {
        let node = &self.nodes[ix];
        let Some(parent) = node.parent else { return Vec::new() };
        match &self.nodes[parent].state {
            State::Dag(dag) => {
                let Some(Body::Dag(body)) =
                    self.nodes[parent].template.map(|at| &self.plan.templates[at].body)
                else {
                    return Vec::new();
                };
                let Some(place) = dag.nodes.iter().position(|at| *at == Some(ix)) else { return Vec::new() };
                let following = body.dependents[place].iter().filter_map(|next| dag.nodes[*next]);
                following.map(|at| self.nodes[at].id.clone()).collect()
            }
            State::StepGroup { .. } => {
                let Some(steps) = self.nodes[parent].parent else { return Vec::new() };
                let groups = &self.nodes[steps].children;
                let place = groups.iter().position(|at| *at == parent);
                let next = place.and_then(|place| groups.get(place + 1));
                next.map(|at| self.nodes[*at].id.clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn outbound(&self, ix: Ix) -> Vec<String> {
        let node = &self.nodes[ix];
        let last: Vec<Ix> = match &node.state {
            State::Pod(_) => vec![ix],
            State::Steps { .. } => {
                node.children.last().map(|group| self.nodes[*group].children.clone()).unwrap_or_default()
            }
            State::Dag(dag) => {
                let Some(Body::Dag(body)) = node.template.map(|at| &self.plan.templates[at].body) else {
                    return Vec::new();
                };
                // One that ended before it began has no tasks.
                body.targets.iter().filter_map(|place| dag.nodes.get(*place).copied().flatten()).collect()
            }
            _ => Vec::new(),
        };
        if matches!(node.state, State::Pod(_)) && node.parent.is_some() {
            return Vec::new();
        }
        last.iter().map(|at| self.nodes[*at].id.clone()).collect()
    }
}

fn flag(node: &Node) -> Option<NodeFlag> {
    let hooked = matches!(node.hook_of, Some(HookOf::Node(_) | HookOf::Workflow));
    let retried = node.attempt.is_some();
    (hooked || retried).then_some(NodeFlag { hooked, retried })
}

type Kinds = BTreeMap<String, String>;

fn parameter_kinds(declared: Option<&Declared>) -> (Kinds, Kinds) {
    let Some(Declared::Kfp(component)) = declared else { return (Kinds::new(), Kinds::new()) };
    let kinds = |map: &BTreeMap<String, api::workflow::ir::ParameterDefinition>| {
        map.iter().map(|(name, definition)| (name.clone(), definition.kind().to_owned())).collect()
    };
    (kinds(&component.input_definitions.parameters), kinds(&component.output_definitions.parameters))
}

fn outputs(values: &Values, kinds: &Kinds) -> Outputs {
    let mut outputs = Outputs {
        result: values.result.clone().map(cut),
        exit_code: values.exit_code.map(|code| code.to_string()),
        ..Outputs::default()
    };
    for (name, value) in &values.parameters {
        outputs.parameters.push(Parameter {
            name: name.clone(),
            value: Some(cut(plain(value))),
            parameter_type: kinds.get(name).cloned().unwrap_or_default(),
        });
    }
    for (name, list) in &values.artifacts {
        for (index, artifact) in list.iter().enumerate() {
            let index = (list.len() > 1).then(|| u32::try_from(index).unwrap_or(u32::MAX));
            outputs.artifacts.push(shown(name, artifact, index));
        }
    }
    outputs
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_IN_STATUS {
        let end = (0..=TEXT_IN_STATUS).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

fn shown(name: &str, artifact: &ArtifactRef, index: Option<u32>) -> Artifact {
    let place = artifact.uri.strip_prefix("minio://").and_then(|rest| rest.split_once('/'));
    let s3 = place.map(|(bucket, key)| S3Location { bucket: bucket.to_owned(), key: key.to_owned() });
    let archive: Option<Value> =
        s3.as_ref().map(|_| if artifact.tar { json!({"tar": {}}) } else { json!({"none": {}}) });
    Artifact {
        name: name.to_owned(),
        path: artifact.path.clone(),
        s3,
        archive,
        uri: artifact.uri.clone(),
        kind: artifact.kind.clone(),
        metadata: artifact.metadata.clone(),
        size: artifact.size,
        sha256: artifact.sha256.clone(),
        index,
    }
}
