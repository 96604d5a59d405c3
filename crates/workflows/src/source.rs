//! What a plan is compiled from: the merged spec and the templates that it refers to, fetched once.
//!
//! It is kept in the journal, so that a template that changes meanwhile does not change a running workflow.

use std::collections::BTreeMap;

use api::workflow::argo::{TemplateRef, WorkflowTemplateRef};
use api::workflow::resource::{ClusterWorkflowTemplate, WorkflowTemplate};
use api::workflow::{KfpRun, Workflow, admission};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use plan::{Identity, Plan};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Config, Error};

/// Most templates that references may pull in.
const LIBRARY_MAX: usize = 100;

/// A plan's source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Who runs it.
    pub identity: Identity,
    /// The spec, merged.
    pub spec: Value,
    /// It came from a `workflowTemplateRef`: status shows it.
    pub referred: bool,
    /// Specs of templates that `templateRef`s name.
    pub library: BTreeMap<String, Value>,
}

impl Source {
    /// Fetches and merges what a workflow needs, and checks it.
    pub async fn resolve(client: &kube::Client, workflow: &Workflow, config: &Config) -> Result<Self, Error> {
        let mut source = Self { identity: identity(workflow, config), ..Self::default() };
        let reference =
            workflow.spec.get("workflowTemplateRef").map(WorkflowTemplateRef::deserialize).transpose();
        let reference =
            reference.map_err(|error| Error::Spec(format!("invalid workflowTemplateRef: {error}")))?;
        source.spec = match reference.filter(|reference| !reference.name.is_empty()) {
            Some(reference) => {
                source.referred = true;
                let namespace = &source.identity.namespace;
                let template = fetch(client, namespace, &reference.name, reference.cluster_scope).await?;
                plan::argo::merge(&workflow.spec, &template)
            }
            None => workflow.spec.clone(),
        };
        source.fill_config_maps(client).await?;
        admission::check_workflow_spec(&source.spec, "spec")
            .map_err(|problems| Error::Spec(problems.to_string()))?;
        source.fetch_library(client).await?;
        Ok(source)
    }

    async fn fetch_library(&mut self, client: &kube::Client) -> Result<(), Error> {
        let mut open: Vec<TemplateRef> = plan::argo::references(&self.spec);
        while let Some(reference) = open.pop() {
            let scope = plan::argo::scope_of(&reference, &self.identity.namespace);
            if self.library.contains_key(&scope) {
                continue;
            }
            if self.library.len() >= LIBRARY_MAX {
                return Err(Error::Spec(format!("templateRefs lead to more than {LIBRARY_MAX} templates")));
            }
            let spec =
                fetch(client, &self.identity.namespace, &reference.name, reference.cluster_scope).await?;
            open.extend(plan::argo::references(&spec));
            self.library.insert(scope, spec);
        }
        Ok(())
    }

    /// Values of workflow arguments that stand in ConfigMaps.
    async fn fill_config_maps(&mut self, client: &kube::Client) -> Result<(), Error> {
        let namespace = self.identity.namespace.clone();
        let parameters = self.spec.pointer_mut("/arguments/parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            let Some(reference) = parameter.pointer("/valueFrom/configMapKeyRef").cloned() else { continue };
            let text =
                |name: &str| reference.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (name, key) = (text("name"), text("key"));
            let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
            let map = maps.get_opt(&name).await.map_err(Error::api("read a ConfigMap"))?;
            let value = map.and_then(|map| map.data).and_then(|data| data.get(&key).cloned());
            let default = parameter.pointer("/valueFrom/default").cloned();
            let value = value.map(Value::String).or(default).ok_or_else(|| {
                Error::Spec(format!("ConfigMap '{name}' has no key '{key}', which a parameter needs"))
            })?;
            if let Some(fields) = parameter.as_object_mut() {
                fields.remove("valueFrom");
                fields.insert("value".into(), value);
            }
        }
        Ok(())
    }

    /// The plan.
    pub fn compile(&self) -> Result<Plan, Error> {
        let compiled = match self.spec.get("kfp") {
            Some(run) => {
                let run =
                    KfpRun::deserialize(run).map_err(|error| Error::Spec(format!("spec.kfp: {error}")))?;
                plan::kfp::compile(self.identity.clone(), &run)
            }
            None => plan::argo::compile(self.identity.clone(), &self.spec, &self.library),
        };
        compiled.map_err(|error| Error::Spec(error.0))
    }
}

fn identity(workflow: &Workflow, config: &Config) -> Identity {
    let meta = &workflow.metadata;
    let created = meta.creation_timestamp.as_ref().map(|time| time.0.as_millisecond());
    Identity {
        name: meta.name.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        created_ms: created.unwrap_or_default(),
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        bucket: config.bucket.clone(),
    }
}

async fn fetch(client: &kube::Client, namespace: &str, name: &str, cluster: bool) -> Result<Value, Error> {
    let spec = if cluster {
        let templates: Api<ClusterWorkflowTemplate> = Api::all(client.clone());
        templates.get_opt(name).await.map(|found| found.map(|found| found.spec))
    } else {
        let templates: Api<WorkflowTemplate> = Api::namespaced(client.clone(), namespace);
        templates.get_opt(name).await.map(|found| found.map(|found| found.spec))
    };
    let kind = if cluster { "clusterworkflowtemplates" } else { "workflowtemplates" };
    spec.map_err(Error::api("read a template"))?
        .ok_or_else(|| Error::Spec(format!("{kind}.argoproj.io \"{name}\" not found")))
}
