//! Why a call has no answer, in the terms of both HTTP and gRPC.
//!
//! Every protocol shapes its own error body; which code it carries is decided here, once.
//!
//! Not here: the bodies (`routes`).

use std::time::Duration;

use models::BackendError;

/// The kinds of refusals. Their names are labels of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The message breaks the rules of its protocol.
    Malformed,
    /// Shape, type or value of an input does not fit the model.
    Input,
    /// The message is larger than the server takes.
    TooLarge,
    /// No such model, version or label.
    NotFound,
    /// The model is known and cannot answer now.
    NotReady,
    /// The model's queue, or the server's, is full.
    QueueFull,
    /// The server expects to miss the call's deadline, or protects what it already works on.
    Shed,
    /// The deadline passed while the call waited.
    Deadline,
    /// The client left.
    Cancelled,
    /// The server is about to end.
    Draining,
    /// Nothing here does that.
    Unsupported,
    /// The operator did not allow it here.
    Forbidden,
    /// The server's or the backend's fault.
    Internal,
}

impl Reason {
    /// All of them, for tables of counts.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Input,
        Self::TooLarge,
        Self::NotFound,
        Self::NotReady,
        Self::QueueFull,
        Self::Shed,
        Self::Deadline,
        Self::Cancelled,
        Self::Draining,
        Self::Unsupported,
        Self::Forbidden,
        Self::Internal,
    ];

    /// The word in metrics and headers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Input => "input",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::NotReady => "not_ready",
            Self::QueueFull => "queue_full",
            Self::Shed => "shed",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Draining => "draining",
            Self::Unsupported => "unsupported",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
        }
    }

    /// Its place in [`Reason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The HTTP status.
    pub fn http(self) -> u16 {
        match self {
            Self::Malformed | Self::Input => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::Unsupported => 501,
            Self::NotReady | Self::QueueFull | Self::Shed | Self::Draining => 503,
            Self::Deadline => 504,
        }
    }

    /// The gRPC code.
    pub fn grpc(self) -> u32 {
        match self {
            Self::Cancelled => 1,
            Self::Malformed | Self::Input => 3,
            Self::Deadline => 4,
            Self::NotFound => 5,
            Self::Forbidden => 7,
            Self::TooLarge => 8,
            Self::Unsupported => 12,
            Self::Internal => 13,
            Self::NotReady | Self::QueueFull | Self::Shed | Self::Draining => 14,
        }
    }
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The kind.
    pub reason: Reason,
    /// What the caller reads.
    pub text: String,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal; those for want of room ask to come back in a second.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        let passes = matches!(reason, Reason::NotReady | Reason::QueueFull | Reason::Shed | Reason::Draining);
        Self { reason, text: text.into(), retry_after: passes.then_some(Duration::from_secs(1)) }
    }

    /// The HTTP status.
    pub fn http(&self) -> u16 {
        self.reason.http()
    }

    /// The gRPC code.
    pub fn grpc(&self) -> u32 {
        self.reason.grpc()
    }
}

impl From<BackendError> for Refusal {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Input(text) => Self::new(Reason::Input, text),
            BackendError::Internal(text) => Self::new(Reason::Internal, text),
            BackendError::Unavailable(text) => Self::new(Reason::NotReady, text),
            BackendError::Late(text) => Self::new(Reason::Deadline, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_lies_where_its_index_says() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index, "{}", reason.word());
        }
    }
}
