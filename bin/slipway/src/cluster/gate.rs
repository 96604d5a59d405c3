//! Who may touch which artifact: asked of the Kubernetes API (`TokenReview`), remembered for a short while.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use api::workflow::{WorkflowTaskResult, label};
use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use objects::face::{Caller, Gate, Refusal};
use parking_lot::Mutex;
use pod_protocol::launch::TaskResultPost;

/// How long an answer about a token holds; a ServiceAccount's end is noticed at most this much later.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Tokens remembered at once.
const REMEMBERED_MAX: usize = 4096;

/// Asks the Kubernetes API.
pub struct KubernetesGate {
    client: Client,
    known: Mutex<HashMap<String, (Instant, Caller)>>,
}

impl KubernetesGate {
    /// A gate that asks as the given part.
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::new(HashMap::new()) }
    }

    fn remembered(&self, token: &str) -> Option<Caller> {
        let known = self.known.lock();
        let (since, caller) = known.get(token)?;
        (since.elapsed() < REMEMBERED).then(|| caller.clone())
    }

    fn remember(&self, token: &str, caller: &Caller) {
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, (since, _)| since.elapsed() < REMEMBERED);
        }
        if known.len() < REMEMBERED_MAX {
            known.insert(token.to_owned(), (Instant::now(), caller.clone()));
        }
    }

    async fn review(&self, token: &str) -> Result<Caller, Refusal> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer =
            Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let status =
            answer.map_err(|error| Refusal::Unavailable(error.to_string()))?.status.unwrap_or_default();
        let name = status.user.and_then(|user| user.username).unwrap_or_default();
        if status.authenticated != Some(true) {
            return Err(Refusal::Unauthenticated(
                status.error.unwrap_or_else(|| "nobody knows it".to_owned()),
            ));
        }
        match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
            Some((super::PLATFORM_NAMESPACE, _)) => Ok(Caller::Platform),
            Some((namespace, _)) => Ok(Caller::Namespace(namespace.to_owned())),
            None => Err(Refusal::Forbidden(format!("{name} is no ServiceAccount"))),
        }
    }
}

#[async_trait]
impl Gate for KubernetesGate {
    async fn authenticate(&self, token: Option<&str>) -> Result<Caller, Refusal> {
        // Without a token only the cluster's owner gets this far: the faces' guard turned everybody else away.
        let Some(token) = token else { return Ok(Caller::Platform) };
        if let Some(caller) = self.remembered(token) {
            return Ok(caller);
        }
        let caller = self.review(token).await?;
        self.remember(token, &caller);
        Ok(caller)
    }

    async fn task_result(&self, post: TaskResultPost) -> Result<(), Refusal> {
        let results: Api<WorkflowTaskResult> =
            Api::namespaced(self.client.clone(), &post.task_result.namespace);
        let object = task_result(post)?;
        match results.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(kube::Error::Api(status)) if status.code < 500 => Err(Refusal::Forbidden(status.message)),
            Err(error) => Err(Refusal::Unavailable(error.to_string())),
        }
    }
}

fn task_result(post: TaskResultPost) -> Result<WorkflowTaskResult, Refusal> {
    let owner = &post.task_result;
    let object = serde_json::json!({
        "apiVersion": api::workflow::API_VERSION,
        "kind": "WorkflowTaskResult",
        "metadata": ObjectMeta {
            name: Some(owner.name.clone()),
            namespace: Some(owner.namespace.clone()),
            labels: Some([(label::WORKFLOW.to_owned(), owner.workflow.clone())].into()),
            owner_references: Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
                api_version: api::workflow::API_VERSION.to_owned(),
                kind: "Workflow".to_owned(),
                name: owner.workflow.clone(),
                uid: owner.workflow_uid.clone(),
                ..Default::default()
            }]),
            ..ObjectMeta::default()
        },
        "report": post.report,
    });
    serde_json::from_value(object).map_err(|error| Refusal::Forbidden(error.to_string()))
}
