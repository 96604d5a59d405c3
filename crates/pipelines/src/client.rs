//! A client of KFP's API: what `slipway kfp submit` does.
//!
//! Reads and checks the package here, so that a wrong file is named before any server is asked; creates the run; follows it
//! to its end. KFP's API has no watch: the state is asked for again after a short pause that grows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::package::Package;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why a submission failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The package cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no pipeline.
    #[error(transparent)]
    Package(#[from] crate::Error),
    /// A `-p` argument has no `=`, or its value does not fit the parameter's type.
    #[error("parameter {0}")]
    Parameter(String),
    /// The server cannot be reached.
    #[error("{url}: {reason}; is the platform running (`slipway status`)?")]
    Unreachable {
        /// What was asked.
        url: String,
        /// The cause.
        reason: String,
    },
    /// The server said no.
    #[error("the pipelines API answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
}

/// A run to submit.
#[derive(Debug, Clone, Default)]
pub struct Submit {
    /// Base URL, e.g. `http://127.42.0.1:8888`.
    pub endpoint: String,
    /// Bearer token.
    pub token: Option<String>,
    /// The run's name.
    pub run_name: String,
    /// Experiment by name; `Default` when none.
    pub experiment: Option<String>,
    /// Root parameters as given on the command line, `name` to text.
    pub parameters: BTreeMap<String, String>,
    /// Caching of root tasks; `None` leaves the package as it is.
    pub enable_caching: Option<bool>,
}

/// One task of a run, as [`follow`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    /// Node id.
    pub id: String,
    /// The task's name.
    pub name: String,
    /// `PENDING`, `RUNNING`, `SUCCEEDED`, `SKIPPED`, `FAILED`.
    pub state: String,
    /// Why it failed.
    pub message: String,
    /// Id of the node it is part of; empty for the root.
    pub parent: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// `SUCCEEDED` or `FAILED`.
    pub state: String,
    /// The reason of a failure.
    pub message: String,
    /// The Run message.
    pub run: Value,
}

/// A connection to the API.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// Connects lazily.
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self, ClientError> {
        // Fails when the process has chosen a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).build();
        let http =
            http.map_err(|e| ClientError::Unreachable { url: endpoint.to_owned(), reason: e.to_string() })?;
        Ok(Self { http, base: format!("{}/apis/v2beta1", endpoint.trim_end_matches('/')), token })
    }

    async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.base);
        let unreachable =
            |e: reqwest::Error| ClientError::Unreachable { url: url.clone(), reason: chain(&e) };
        let mut request = self.http.request(method, &url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        let answer: Value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).chars().take(500).collect()));
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer["message"].as_str().or(answer.as_str()).unwrap_or_default().to_owned();
        Err(ClientError::Refused { status: status.as_u16(), message })
    }

    async fn experiment(&self, name: &str) -> Result<String, ClientError> {
        let filter =
            json!({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]});
        let filter: String = filter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found = self.call(reqwest::Method::GET, &format!("/experiments?filter={filter}"), None).await?;
        if let Some(id) = found["experiments"][0]["experiment_id"].as_str() {
            return Ok(id.to_owned());
        }
        let made =
            self.call(reqwest::Method::POST, "/experiments", Some(&json!({ "display_name": name }))).await?;
        Ok(made["experiment_id"].as_str().unwrap_or_default().to_owned())
    }

    /// Creates a run of `package`; the Run message.
    pub async fn create_run(&self, package: &Package, submit: &Submit) -> Result<Value, ClientError> {
        let mut package = package.clone();
        if let Some(enable) = submit.enable_caching {
            set_caching(&mut package.pipeline_spec, enable);
        }
        let mut body = json!({
            "display_name": submit.run_name,
            "pipeline_spec": package.to_api(),
            "runtime_config": { "parameters": typed(&package, &submit.parameters)? },
        });
        if let Some(name) = &submit.experiment {
            body["experiment_id"] = self.experiment(name).await?.into();
        }
        self.call(reqwest::Method::POST, "/runs", Some(&body)).await
    }

    /// Follows a run to its end and tells each new state of a task once.
    pub async fn follow(
        &self,
        run_id: &str,
        mut told: impl FnMut(&TaskState),
    ) -> Result<Finished, ClientError> {
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut pause = PAUSE_FIRST;
        loop {
            let run = match self.call(reqwest::Method::GET, &format!("/runs/{run_id}"), None).await {
                Ok(run) => run,
                // The server may be starting again; the run goes on without it.
                Err(ClientError::Unreachable { .. }) if pause < PAUSE_MAX => Value::Null,
                Err(error) => return Err(error),
            };
            for task in tasks(&run) {
                if seen.insert(task.id.clone(), task.state.clone()).as_ref() != Some(&task.state) {
                    pause = PAUSE_FIRST;
                    told(&task);
                }
            }
            let state = run["state"].as_str().unwrap_or_default();
            if crate::row::is_final(state) {
                let message = run["error"]["message"].as_str().unwrap_or_default().to_owned();
                return Ok(Finished { state: state.to_owned(), message, run });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(PAUSE_MAX);
        }
    }
}

/// Reads a package file; what is no pipeline is refused with what was expected.
pub async fn load(path: &Path) -> Result<Package, ClientError> {
    let shown = path.display().to_string();
    let bytes =
        tokio::fs::read(path).await.map_err(|source| ClientError::File { path: shown.clone(), source })?;
    Ok(Package::read(&bytes, &shown)?)
}

/// Loads the package at `path` and creates a run of it; its id.
pub async fn submit(path: &Path, submit: &Submit) -> Result<String, ClientError> {
    let package = load(path).await?;
    let client = Client::new(&submit.endpoint, submit.token.clone())?;
    let run = client.create_run(&package, submit).await?;
    Ok(run["run_id"].as_str().unwrap_or_default().to_owned())
}

fn tasks(run: &Value) -> Vec<TaskState> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let details = run["run_details"]["task_details"].as_array().map(Vec::as_slice).unwrap_or_default();
    details
        .iter()
        .map(|task| TaskState {
            id: text(&task["task_id"]),
            name: text(&task["display_name"]),
            state: text(&task["state"]),
            message: text(&task["error"]["message"]),
            parent: text(&task["parent_task_id"]),
        })
        .collect()
}

/// The texts of the command line as the types that the pipeline asks for.
fn typed(package: &Package, given: &BTreeMap<String, String>) -> Result<Map<String, Value>, ClientError> {
    let definitions = &package.pipeline_spec["root"]["inputDefinitions"]["parameters"];
    let mut out = Map::new();
    for (name, text) in given {
        let Some(definition) = definitions.get(name) else {
            let known: Vec<_> =
                definitions.as_object().map(|d| d.keys().cloned().collect()).unwrap_or_default();
            let text = format!("`{name}` is not one of the pipeline's; it has: {}", known.join(", "));
            return Err(ClientError::Parameter(text));
        };
        let kind = definition["parameterType"].as_str().unwrap_or("STRING");
        let value = match kind {
            "STRING" => Value::String(text.clone()),
            _ => serde_json::from_str(text).map_err(|_| {
                ClientError::Parameter(format!("`{name}`: `{text}` is no JSON value of type {kind}"))
            })?,
        };
        out.insert(name.clone(), value);
    }
    Ok(out)
}

/// As the SDK does: the root's tasks only.
fn set_caching(spec: &mut Value, enable: bool) {
    let tasks = spec.pointer_mut("/root/dag/tasks").and_then(Value::as_object_mut);
    for task in tasks.into_iter().flat_map(Map::values_mut) {
        task["cachingOptions"] = if enable { json!({ "enableCache": true }) } else { json!({}) };
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_values_get_the_pipelines_types() {
        let package = Package::read(crate::package::tests::HELLO.as_bytes(), "f").unwrap();
        let given = |pairs: &[(&str, &str)]| {
            typed(&package, &pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        assert_eq!(
            Value::Object(given(&[("text", "1"), ("count", "2")]).unwrap()),
            json!({"text": "1", "count": 2})
        );
        assert!(given(&[("count", "two")]).is_err());
        assert!(given(&[("other", "x")]).unwrap_err().to_string().contains("text, count"));
    }
}
