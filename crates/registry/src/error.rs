//! Why the registry refused or failed a request, and the one place where that becomes an MLflow error body.
//!
//! The MLflow client retries 5xx for minutes, so everything that another try cannot heal is a 4xx here.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// Shorthand used in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the registry refused or failed a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named thing is not there.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken. MLflow answers this with 400, not 409.
    #[error("{0}")]
    Exists(String),
    /// A value is not what the API takes; the text names the field, the value and what was expected.
    #[error("{0}")]
    Invalid(String),
    /// The thing is in a state that forbids the call.
    #[error("{0}")]
    InvalidState(String),
    /// The endpoint is part of MLflow's API but not of this server.
    #[error("{0}")]
    NotImplemented(String),
    /// The database failed.
    #[error("cannot {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The driver's error.
        source: sqlx::Error,
    },
    /// The artifact store failed.
    #[error("cannot {doing} artifact '{path}'")]
    Artifact {
        /// What was being done.
        doing: &'static str,
        /// The artifact's path.
        path: String,
        /// The store's error.
        source: object_store::Error,
    },
    /// A migration in the database is newer than, or different from, the ones in this binary.
    #[error("database is at schema {found}, this binary knows up to {known}: use a newer binary")]
    SchemaTooNew {
        /// Version in the database.
        found: i64,
        /// Newest version here.
        known: i64,
    },
    /// The Kubernetes API failed (recorder only).
    #[error("cannot {doing}")]
    Kube {
        /// What was being done.
        doing: &'static str,
        /// The client's error.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// Status and MLflow `error_code`.
    #[must_use]
    pub fn class(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "RESOURCE_DOES_NOT_EXIST"),
            Self::Exists(_) => (StatusCode::BAD_REQUEST, "RESOURCE_ALREADY_EXISTS"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "INVALID_PARAMETER_VALUE"),
            Self::InvalidState(_) => (StatusCode::BAD_REQUEST, "INVALID_STATE"),
            Self::NotImplemented(_) => (StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED"),
            Self::Artifact { source: object_store::Error::NotFound { .. }, .. } => {
                (StatusCode::NOT_FOUND, "RESOURCE_DOES_NOT_EXIST")
            }
            Self::Database { source: sqlx::Error::PoolTimedOut, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE")
            }
            Self::Database { .. } | Self::Artifact { .. } | Self::SchemaTooNew { .. } | Self::Kube { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR")
            }
        }
    }

    /// Text of this error and of all its causes.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = self.class();
        if status.is_server_error() {
            tracing::error!(error = %self.chain(), "request failed");
        }
        (status, Json(json!({"error_code": code, "message": self.chain()}))).into_response()
    }
}

/// Adds what was being done to a database error.
pub(crate) trait Doing<T> {
    /// `Err` becomes [`Error::Database`] that says `doing`.
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| Error::Database { doing, source })
    }
}
