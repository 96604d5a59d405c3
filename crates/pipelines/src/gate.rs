//! What the artifact face asks of Kubernetes: whose token this is, and the writing of `WorkflowTaskResult`s.
//!
//! A token is checked by TokenReview and remembered for a minute: a step with a thousand files asks once. Only digests of
//! tokens are kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use api::workflow::{API_VERSION, WorkflowTaskResult, label};
use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use objects::face::{Caller, Gate, Refusal};
use parking_lot::Mutex;
use pod_protocol::launch::TaskResultPost;
use sha2::{Digest, Sha256};

const REMEMBER: Duration = Duration::from_secs(60);
const REMEMBERED_MAX: usize = 4096;

/// The [`Gate`] of a cluster.
pub struct KubeGate {
    client: kube::Client,
    /// ServiceAccounts (`system:serviceaccount:NS:NAME`) of the platform's own parts: they may touch every key.
    platform: Vec<String>,
    known: Mutex<HashMap<[u8; 32], (Instant, Caller)>>,
}

impl KubeGate {
    /// `client` needs `create` on tokenreviews, and on workflowtaskresults in all namespaces. Members of `system:masters` and the
    /// accounts in `platform` may touch every key.
    pub fn new(client: kube::Client, platform: Vec<String>) -> Self {
        Self { client, platform, known: Mutex::new(HashMap::new()) }
    }

    async fn review(&self, token: &str) -> Result<Caller, Refusal> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let api = Api::<TokenReview>::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|e| Refusal::Unavailable(e.to_string()))?.status.unwrap_or_default();
        if !status.authenticated.unwrap_or(false) {
            return Err(Refusal::Unauthenticated(
                status.error.unwrap_or_else(|| "the token is not known".to_owned()),
            ));
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        let is_master = user.groups.unwrap_or_default().iter().any(|group| group == "system:masters");
        caller_of(&name, is_master || self.platform.contains(&name))
    }
}

fn caller_of(name: &str, trusted: bool) -> Result<Caller, Refusal> {
    if trusted {
        return Ok(Caller::Platform);
    }
    let namespace = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match namespace {
        Some((namespace, _)) => Ok(Caller::Namespace(namespace.to_owned())),
        None => Err(Refusal::Forbidden(format!("`{name}` is no ServiceAccount: its keys are not known"))),
    }
}

#[async_trait]
impl Gate for KubeGate {
    async fn authenticate(&self, token: Option<&str>) -> Result<Caller, Refusal> {
        let token = token.ok_or_else(|| Refusal::Unauthenticated("no bearer token was sent".to_owned()))?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        let now = Instant::now();
        if let Some((until, caller)) = self.known.lock().get(&digest)
            && now < *until
        {
            return Ok(caller.clone());
        }
        let caller = self.review(token).await?;
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < REMEMBERED_MAX {
            known.insert(digest, (now + REMEMBER, caller.clone()));
        }
        Ok(caller)
    }

    async fn task_result(&self, post: TaskResultPost) -> Result<(), Refusal> {
        let reference = post.task_result;
        let report = serde_json::to_value(post.report).map_err(|e| Refusal::Forbidden(e.to_string()))?;
        let object = WorkflowTaskResult {
            api_version: API_VERSION.to_owned(),
            kind: "WorkflowTaskResult".to_owned(),
            metadata: ObjectMeta {
                name: Some(reference.name.clone()),
                namespace: Some(reference.namespace.clone()),
                labels: Some([(label::WORKFLOW.to_owned(), reference.workflow.clone())].into()),
                owner_references: Some(vec![OwnerReference {
                    api_version: API_VERSION.to_owned(),
                    kind: "Workflow".to_owned(),
                    name: reference.workflow,
                    uid: reference.workflow_uid,
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            report: Some(report.clone()),
            ..WorkflowTaskResult::default()
        };
        let api = Api::<WorkflowTaskResult>::namespaced(self.client.clone(), &reference.namespace);
        let done = match api.create(&PostParams::default(), &object).await {
            // A repeat, or the next attempt of the same node: the newest report counts.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patch = Patch::Merge(serde_json::json!({ "report": report }));
                api.patch(&reference.name, &PatchParams::default(), &patch).await
            }
            other => other,
        };
        match done {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                Err(Refusal::Forbidden(status.message))
            }
            Err(error) => Err(Refusal::Unavailable(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_its_namespace() {
        let team = caller_of("system:serviceaccount:team:default", false).unwrap();
        assert_eq!(team, Caller::Namespace("team".to_owned()));
        assert_eq!(caller_of("admin", true).unwrap(), Caller::Platform);
        assert!(caller_of("admin", false).is_err());
        assert!(caller_of("system:serviceaccount:team", false).is_err());
    }
}
