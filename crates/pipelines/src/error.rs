//! Why a call failed, as the gRPC status that KFP's clients know.
//!
//! One enum for the crate; [`Error::code`] is the one place where a failure becomes a `google.rpc.Code`, and
//! [`Code::status`] where that becomes an HTTP status (grpc-gateway's table).

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// What a call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request does not make sense; the text names the field, the value and what was expected.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{what} `{id}` does not exist")]
    NotFound {
        /// `run`, `experiment`, …
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The name is taken.
    #[error("{what} `{name}` exists already")]
    Exists {
        /// `experiment`, `pipeline`, …
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The state of the thing does not allow it.
    #[error("{0}")]
    Precondition(String),
    /// A call of KFP's API that this build does not have.
    #[error("{0} is not implemented yet")]
    NotYet(&'static str),
    /// The database failed.
    #[error("cannot {doing}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database was written by a newer version.
    #[error("the pipelines tables have version {found}, this build knows {known}")]
    SchemaTooNew {
        /// Version found.
        found: i64,
        /// Newest known.
        known: i64,
    },
    /// Kubernetes failed or refused.
    #[error("cannot {doing}")]
    Kube {
        /// What was being done.
        doing: &'static str,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The artifact store failed or refused.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// A stored document cannot be read.
    #[error("stored {what} is damaged: {source}")]
    Stored {
        /// Which column.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The `google.rpc.Code`s in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// Malformed request.
    InvalidArgument = 3,
    /// No such thing.
    NotFound = 5,
    /// The name is taken.
    AlreadyExists = 6,
    /// Not allowed.
    PermissionDenied = 7,
    /// Not in this state.
    FailedPrecondition = 9,
    /// No such call.
    Unimplemented = 12,
    /// A fault here.
    Internal = 13,
    /// Try again.
    Unavailable = 14,
}

impl Code {
    /// grpc-gateway's HTTP status for the code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Error {
    /// The code that clients see.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound { .. } => Code::NotFound,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Precondition(_) => Code::FailedPrecondition,
            Self::NotYet(_) => Code::Unimplemented,
            Self::Database { .. } => Code::Unavailable,
            Self::Kube { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => match status.code {
                    403 => Code::PermissionDenied,
                    404 => Code::NotFound,
                    400 | 422 => Code::InvalidArgument,
                    409 => Code::AlreadyExists,
                    _ => Code::Unavailable,
                },
                _ => Code::Unavailable,
            },
            Self::Objects(error) if error.is_not_found() => Code::NotFound,
            Self::Objects(objects::Error::BadName { .. } | objects::Error::BadUri { .. }) => {
                Code::InvalidArgument
            }
            Self::Objects(objects::Error::NotYet { .. }) => Code::Unimplemented,
            Self::Objects(_) | Self::SchemaTooNew { .. } | Self::Stored { .. } => Code::Internal,
        }
    }

    /// The text with its causes, once.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        text
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let code = self.code();
        let text = self.text();
        if code.status().is_server_error() && code != Code::Unimplemented {
            tracing::warn!(error = %text, "pipelines face");
        }
        (code.status(), Json(json!({ "code": code as i32, "message": text, "details": [] }))).into_response()
    }
}

/// Names what a database call was for.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| Error::Database { doing, source })
    }
}

impl<T> Doing<T> for std::result::Result<T, kube::Error> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(|source| Error::Kube { doing, source: Box::new(source) })
    }
}
