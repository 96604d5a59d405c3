//! `pod launch -- COMMAND…`: the process that a workflow step's container really starts.
//!
//! Fetches the inputs, runs the user's command as a child with its output passed through, uploads the outputs and
//! reports: what upstream spends an init container and a sidecar on. One thread and blocking IO,
//! because it does one thing after the other; everything it must do was decided by the controller and stands
//! in [`LaunchSpec`].
//!
//! The exit code is the user's. When the launcher itself fails it is one of [`code`], and the report says why.
//! Not here: placeholders and templates (resolved before the pod exists), retries of the step (the engine's).

mod archive;
mod command;
mod http;
mod inputs;
mod names;
mod outputs;
mod place;
mod python;
mod report;

use std::ffi::OsString;

use pod_protocol::launch::{self, LaunchReport, LaunchSpec};

/// Exit codes of the launcher's own failures.
pub mod code {
    /// The spec is missing, unreadable or of another version; or there is no command.
    pub const SPEC: i32 = 64;
    /// An input could not be provided.
    pub const INPUT: i32 = 65;
    /// The Python environment could not be provided.
    pub const PYTHON: i32 = 66;
    /// An output is missing or could not be uploaded.
    pub const OUTPUT: i32 = 67;
    /// The report could not be handed in.
    pub const REPORT: i32 = 68;
    /// The command exists but cannot be run.
    pub const NOT_RUNNABLE: i32 = 126;
    /// There is no such command.
    pub const NOT_FOUND: i32 = 127;
}

/// Why the launcher failed, and the exit code for it.
#[derive(Debug)]
struct Failure {
    code: i32,
    text: String,
}

impl Failure {
    fn new(code: i32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Runs the launcher on the arguments after `launch`; the exit code.
pub fn main(args: &[OsString]) -> i32 {
    let command = match args.first() {
        Some(first) if first == "--" => &args[1..],
        _ => args,
    };
    let spec = match read_spec() {
        Ok(spec) => spec,
        Err(failure) => {
            let report = LaunchReport { version: launch::VERSION, ..LaunchReport::default() };
            return finish(&LaunchSpec::default(), None, report, Some(failure));
        }
    };
    let store = http::Client::from_env();
    let mut report = LaunchReport { version: launch::VERSION, ..LaunchReport::default() };
    let failure = work(&spec, store.as_ref(), command, &mut report).err();
    finish(&spec, store.as_ref(), report, failure)
}

fn read_spec() -> Result<LaunchSpec, Failure> {
    let bad = |text: String| Failure::new(code::SPEC, text);
    let text = match (std::env::var(launch::SPEC_ENV), std::env::var(launch::SPEC_FILE_ENV)) {
        (Ok(text), _) => text,
        (_, Ok(file)) => {
            std::fs::read_to_string(&file).map_err(|e| bad(format!("launch spec {file}: {e}")))?
        }
        _ => {
            let text = format!("neither {} nor {} is set", launch::SPEC_ENV, launch::SPEC_FILE_ENV);
            return Err(bad(text));
        }
    };
    let spec: LaunchSpec = serde_json::from_str(&text).map_err(|e| bad(format!("launch spec: {e}")))?;
    if spec.version != launch::VERSION {
        return Err(bad(format!("launch spec has version {}, {} is known", spec.version, launch::VERSION)));
    }
    Ok(spec)
}

fn work(
    spec: &LaunchSpec,
    store: Option<&http::Client>,
    command: &[OsString],
    report: &mut LaunchReport,
) -> Result<(), Failure> {
    if command.is_empty() {
        return Err(Failure::new(code::SPEC, "no command after `--`"));
    }
    inputs::provide(spec, store).map_err(|text| Failure::new(code::INPUT, text))?;
    let mut environment = Vec::new();
    if let Some(python) = &spec.python {
        environment = python::provide(python).map_err(|text| Failure::new(code::PYTHON, text))?;
    }
    let capture = command::Capture { result: spec.capture_result, log: spec.log_uri.is_some() };
    let done = command::run(command, &environment, capture)?;
    report.exit_code = Some(done.exit_code);
    report.result = done.result;
    let outputs = outputs::collect(spec, store, done.exit_code == 0, report);
    let log = outputs::upload_log(spec, store, done.log);
    outputs.and(log).map_err(|text| Failure::new(code::OUTPUT, text))
}

/// Hands the report in and picks the exit code: the user's when it is a failure, else the launcher's.
fn finish(
    spec: &LaunchSpec,
    store: Option<&http::Client>,
    mut report: LaunchReport,
    failure: Option<Failure>,
) -> i32 {
    let mut exit_code = report.exit_code.unwrap_or(code::SPEC);
    if let Some(failure) = failure {
        eprintln!("slipway: {}", failure.text);
        if report.exit_code.is_none_or(|user| user == 0) {
            exit_code = failure.code;
        }
        report.error = Some(failure.text);
    }
    match report::hand_in(spec, store, report) {
        Ok(()) => exit_code,
        Err(text) => {
            eprintln!("slipway: {text}");
            if exit_code == 0 { code::REPORT } else { exit_code }
        }
    }
}
