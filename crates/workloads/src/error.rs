//! Why a reconcile failed.

/// A failed step of a controller. The queue retries it; nothing else is to be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused or could not be reached.
    #[error("cannot {doing}")]
    Api {
        /// What was being done, with its object.
        doing: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// A folder on disk could not be made or removed.
    #[error("cannot {doing}")]
    Disk {
        /// What was being done, with its path.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
    /// An object says what cannot be carried out.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether the API answered with this HTTP status.
    pub fn is_status(&self, code: u16) -> bool {
        matches!(self, Self::Api { source, .. } if status(source) == Some(code))
    }

    /// Whether a newer version of the object was in the way.
    pub fn is_conflict(&self) -> bool {
        self.is_status(409)
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

/// The HTTP status of an answer, `None` when there was none.
pub(crate) fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Adds what was being done to an API error.
pub(crate) trait Doing<T> {
    /// Names the deed and its object.
    fn doing(self, deed: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, deed: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api { doing: deed(), source: Box::new(source) })
    }
}
