//! Flags that name many models, for `slipway serve`.
//!
//! Names are those of TensorFlow Serving, Triton and MLServer, so that their users find them.
//!
//! Not here: the one model of KServe's servers (`cli`).

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::tfs::seconds;
use crate::config::{Config, Lazy, ResponseCache, Source};
use crate::served::Personality;

/// Which models, and how they are kept up to date.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
pub struct Lists {
    /// The models, in the form of TensorFlow Serving's file, instead of one.
    #[arg(long = "model_config_file", conflicts_with = "model_repository")]
    pub model_config_file: Option<PathBuf>,
    /// Seconds between two looks at that file; 0 is one look.
    #[arg(long = "model_config_file_poll_wait_seconds", default_value_t = 0)]
    pub model_config_file_poll_wait_seconds: u64,
    /// A folder with a folder for each model, as Triton and MLServer lay them out, instead of one model.
    #[arg(long = "model_repository", alias = "model-repository", alias = "model-store")]
    pub model_repository: Option<PathBuf>,
    /// Load only this model of the folder at the start, and others by calls; may be repeated. `-` loads none.
    #[arg(long = "load_model", alias = "load-model", requires = "model_repository", action = ArgAction::Append)]
    pub load_model: Vec<String>,
    /// Load each model when it is first called, instead of at the start.
    #[arg(long)]
    pub lazy: bool,
    /// Bytes that loaded models may take, by the sizes of their files: the longest unused go for others.
    #[arg(long = "memory_bytes_max", requires = "lazy")]
    pub memory_bytes_max: Option<u64>,
    /// Models that may be loaded at once: the longest unused go for others.
    #[arg(long = "models_max", requires = "lazy")]
    pub models_max: Option<usize>,
    /// Keep answers for the same calls where a model does not say whether to.
    #[arg(long = "enable_response_cache")]
    pub enable_response_cache: bool,
    /// Bytes that kept answers may take, of all models together.
    #[arg(long = "response_cache_byte_size", alias = "response-cache-byte-size", default_value_t = 64 << 20)]
    pub response_cache_byte_size: usize,
    /// Seconds between two looks at the models' folders for new versions and changed files; 0 is one look.
    #[arg(long = "file_system_poll_wait_seconds", default_value_t = 0)]
    pub file_system_poll_wait_seconds: u64,
    /// Whether a model that cannot be read at the start ends the server.
    #[arg(long = "exit_on_error", alias = "exit-on-error", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub exit_on_error: bool,
    /// Check flags, files and folders, tell what would be served, and end.
    #[arg(long = "check_config", alias = "check-config")]
    pub check_config: bool,
}

impl Lists {
    pub(super) fn apply(&self, config: &mut Config, personality: Personality) -> Result<(), String> {
        if let Some(path) = &self.model_config_file {
            let poll = seconds(self.model_config_file_poll_wait_seconds);
            config.models = Source::File { path: path.clone(), poll };
        }
        if let Some(path) = &self.model_repository {
            let only: Vec<String> = self.load_model.iter().filter(|name| *name != "-").cloned().collect();
            let only = (!self.load_model.is_empty()).then_some(only);
            config.models = Source::Folder { path: path.clone(), personality, only };
        }
        config.cache = ResponseCache {
            bytes_max: self.response_cache_byte_size,
            by_default: self.enable_response_cache,
        };
        if self.models_max == Some(0) {
            return Err("--models_max 0: no model could be loaded".to_owned());
        }
        let bounds = Lazy { bytes_max: self.memory_bytes_max, models_max: self.models_max };
        config.loading.lazy = self.lazy.then_some(bounds);
        config.loading.poll = seconds(self.file_system_poll_wait_seconds);
        config.loading.exit_on_error = self.exit_on_error;
        Ok(())
    }
}
