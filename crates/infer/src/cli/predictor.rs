//! Flags of transformers: whom a class in Python asks, by the names of KServe's servers.
//!
//! Not here: asking (the worker of `backend-host`).

use std::time::Duration;

use clap::{ArgAction, Args};

use models::Predictor;

use crate::config::Config;

/// Whom a transformer asks.
#[derive(Debug, Clone, Args)]
#[group(id = "predictor_of_transformers")]
#[command(rename_all = "snake_case")]
pub struct Flags {
    /// Host, with its port, of the predictor that the class of `--python_class` asks.
    #[arg(long = "predictor_host", alias = "predictor-host")]
    pub predictor_host: Option<String>,
    /// Seconds that the predictor may take.
    #[arg(long = "predictor_request_timeout_seconds", default_value_t = 600)]
    pub predictor_request_timeout_seconds: u64,
    /// Ask the predictor over TLS.
    #[arg(long = "predictor_use_ssl", default_value_t = false, action = ArgAction::Set)]
    pub predictor_use_ssl: bool,
    /// How often the predictor is asked again where it cannot be reached.
    #[arg(long = "predictor_request_retries", default_value_t = 0)]
    pub predictor_request_retries: u32,
}

impl Flags {
    pub(super) fn apply(&self, protocol: &str, has_class: bool, config: &mut Config) -> Result<(), String> {
        let Some(host) = self.predictor_host.as_ref().filter(|host| !host.is_empty()) else { return Ok(()) };
        let Some(python) = config.python.as_mut().filter(|_| has_class) else {
            return Err(format!(
                "--predictor_host {host}: only a transformer asks another server; give its class by --allow_python and \
                 --python_class"
            ));
        };
        if host.contains(['/', '@', '?', '#']) || host.contains(char::is_whitespace) {
            return Err(format!("--predictor_host {host}: expected a host, or host:port"));
        }
        if protocol == "grpc-v2" {
            return Err(
                "--predictor_protocol grpc-v2: a predictor is asked over HTTP, in v1 or v2".to_owned()
            );
        }
        python.predictor = Some(Predictor {
            host: host.clone(),
            protocol: protocol.to_owned(),
            use_ssl: self.predictor_use_ssl,
            timeout: Duration::from_secs(self.predictor_request_timeout_seconds.max(1)),
            retries: self.predictor_request_retries,
        });
        Ok(())
    }
}
