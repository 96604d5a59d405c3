//! How the report reaches the controller.
//!
//! The termination message is a file that the node reads; it holds 4,096 bytes. A larger report goes to
//! the artifact face, which writes it as a `WorkflowTaskResult`: the launcher then needs no TLS and
//! no rights on the Kubernetes API, and the message says that the rest is there.

use std::fs;
use std::io::Write;

use pod_protocol::launch::{LaunchReport, LaunchSpec, TERMINATION_MESSAGE_MAX, TaskResultPost};

use super::http::{Body, Client};

/// Environment variable with the path of the termination message.
const MESSAGE_PATH_ENV: &str = "SLIPWAY_TERMINATION_LOG";
const MESSAGE_PATH: &str = "/dev/termination-log";
const ERROR_CHARS_MAX: usize = 1500;

/// Writes the report where the controller looks for it.
pub fn hand_in(spec: &LaunchSpec, store: Option<&Client>, mut report: LaunchReport) -> Result<(), String> {
    if let Some(error) = &mut report.error
        && error.len() > ERROR_CHARS_MAX
    {
        *error = error.chars().take(ERROR_CHARS_MAX).chain("…".chars()).collect();
    }
    let text = serde_json::to_vec(&report).map_err(|e| format!("report: {e}"))?;
    if text.len() <= TERMINATION_MESSAGE_MAX {
        return write_message(&text);
    }
    let short = LaunchReport {
        version: report.version,
        elsewhere: true,
        exit_code: report.exit_code,
        error: report.error.clone(),
        ..LaunchReport::default()
    };
    match post(spec, store, report) {
        Ok(()) => write_message(&serde_json::to_vec(&short).map_err(|e| format!("report: {e}"))?),
        Err(text) => {
            // Without its outputs the step is of no use, and the controller must not look for them.
            let text = format!("report of {} bytes: {text}", text.len());
            let short = LaunchReport { elsewhere: false, error: Some(text.clone()), ..short };
            write_message(&serde_json::to_vec(&short).map_err(|e| format!("report: {e}"))?)?;
            Err(text)
        }
    }
}

fn post(spec: &LaunchSpec, store: Option<&Client>, report: LaunchReport) -> Result<(), String> {
    let task_result = spec.task_result.clone().ok_or("the spec names no WorkflowTaskResult for it")?;
    let store = store.ok_or("SLIPWAY_ARTIFACTS_URL is not set")?;
    let body = serde_json::to_vec(&TaskResultPost { task_result, report }).map_err(|e| e.to_string())?;
    let headers = [("content-type", "application/json")];
    let sent = store.call("POST", "/v1/task-results", &headers, &Body::Bytes(&body), &mut |_| Ok(()));
    sent.map_err(|error| error.text)
}

fn write_message(text: &[u8]) -> Result<(), String> {
    let path = std::env::var(MESSAGE_PATH_ENV).unwrap_or_else(|_| MESSAGE_PATH.to_owned());
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).open(&path);
    written.and_then(|mut file| file.write_all(text)).map_err(|e| format!("termination message {path}: {e}"))
}
