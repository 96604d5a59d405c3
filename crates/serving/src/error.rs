//! Why a reconcile did not go through; each is tried again.

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused or was not there.
    #[error("cannot {doing} {what}")]
    Kube {
        /// What was being done.
        doing: &'static str,
        /// To what.
        what: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
}

impl Error {
    pub(crate) fn kube(doing: &'static str, what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Kube { doing, what, source: Box::new(source) }
    }
}
