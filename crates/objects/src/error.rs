//! Why an artifact could not be read, written or found.
//!
//! One enum for the crate, with one place ([`Error::status`]) that turns a failure into an HTTP status.

use std::path::PathBuf;

use crate::uri::ObjectName;

/// Why the store, the face or a fetch refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URI is not one the platform can hold.
    #[error("`{uri}` is not an artifact URI: {reason}")]
    BadUri {
        /// The text as given.
        uri: String,
        /// What was expected.
        reason: String,
    },
    /// The key or bucket name is not one the store can hold.
    #[error("`{name}` is not an object name: {reason}")]
    BadName {
        /// The text as given.
        name: String,
        /// What was expected.
        reason: String,
    },
    /// A kind of address that parses but has no implementation in this build.
    #[error("`{uri}`: {what} is not implemented yet; use minio://, file://, https:// or models:/")]
    NotYet {
        /// The URI.
        uri: String,
        /// The missing part.
        what: &'static str,
    },
    /// No such object.
    #[error("{0} does not exist")]
    NotFound(String),
    /// An object stands where a folder must be, or the other way round.
    #[error("{0} cannot be stored: another object is a folder of its key, or has it as a folder")]
    KeyIsFolder(ObjectName),
    /// The bytes are not those whose digest was announced.
    #[error("{name}: sha256 is {actual}, {expected} was announced")]
    Digest {
        /// The object.
        name: ObjectName,
        /// The digest announced.
        expected: String,
        /// The digest of the bytes.
        actual: String,
    },
    /// More bytes than the store takes for one object.
    #[error("{name} is larger than {bytes_max} bytes")]
    TooLarge {
        /// The object.
        name: String,
        /// The bound.
        bytes_max: u64,
    },
    /// The sender broke off.
    #[error("{name}: the body ended early: {reason}")]
    Body {
        /// The object.
        name: ObjectName,
        /// What the transport said.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A server could not be reached or broke off.
    #[error("{url}: {reason}")]
    Http {
        /// What was asked.
        url: String,
        /// The chain of causes.
        reason: String,
    },
    /// A server said no.
    #[error("{url} answered {status}: {body}")]
    Status {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The start of the body.
        body: String,
    },
    /// A setting is needed that was not given.
    #[error("`{uri}` needs {setting}, which is not set")]
    NeedsEndpoint {
        /// The URI.
        uri: String,
        /// The environment variable or flag.
        setting: &'static str,
    },
    /// A server answered something that cannot be used.
    #[error("{url}: {reason}")]
    BadAnswer {
        /// What was asked.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// The HTTP status that the artifact face answers with.
    pub fn status(&self) -> http::StatusCode {
        use http::StatusCode;
        match self {
            Self::BadUri { .. } | Self::BadName { .. } | Self::Digest { .. } | Self::Body { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::NotYet { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::KeyIsFolder(_) => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Io { source, .. } if is_full(source) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Http { .. } | Self::Status { .. } | Self::NeedsEndpoint { .. } | Self::BadAnswer { .. } => {
                StatusCode::BAD_GATEWAY
            }
        }
    }

    /// Whether this is "there is no such object".
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Status { status: 404, .. })
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn http(url: impl Into<String>, error: &reqwest::Error) -> Self {
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            reason = format!("{reason}: {inner}");
            cause = inner.source();
        }
        Self::Http { url: url.into(), reason }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
