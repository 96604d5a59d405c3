//! Why a model cannot be loaded.
//!
//! Each variant names the thing in question (a global, a class, an offset), because the reader of this text is
//! a person who has to decide between another file, another setting and another server.

/// Why a file was not turned into a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file refers to code that a model of this kind has no reason to refer to.
    #[error("refused: {global}: {reason} (offset {offset}); nothing was executed")]
    Refused {
        /// Module and name, joined by a dot.
        global: String,
        /// What is wrong with it.
        reason: &'static str,
        /// Where in the (unpacked) file.
        offset: usize,
    },
    /// The file ends before what it announces.
    #[error("truncated: {what} at offset {offset} needs {needed} bytes, {left} are left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: usize,
        /// How many bytes it announces.
        needed: u64,
        /// How many there are.
        left: usize,
    },
    /// The file breaks the rules of its own format.
    #[error("malformed {format}: {what} (offset {offset})")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What is wrong.
        what: String,
        /// Where.
        offset: usize,
    },
    /// The file asks for more than [`crate::Limits`] allow.
    #[error("too large: {what} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The file is read, but it holds something that is not evaluated natively.
    #[error("unsupported: {what}")]
    Unsupported {
        /// The class's full name, or the setting of it.
        what: String,
    },
    /// An estimator lacks an attribute, or it has another form than expected.
    #[error("{class}: {what}")]
    Attribute {
        /// The class's full name.
        class: String,
        /// What is missing or wrong.
        what: String,
    },
    /// The bytes are none of the formats that are known.
    #[error("not a model file that is known here: {what}")]
    Unknown {
        /// What it looks like.
        what: String,
    },
    /// The folder does not name one model file.
    #[error("{what}")]
    Folder {
        /// What was looked for and what was found.
        what: String,
    },
}

impl LoadError {
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }

    pub(crate) fn attribute(class: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Attribute { class: class.into(), what: what.into() }
    }

    pub(crate) fn malformed(format: &'static str, offset: usize, what: impl Into<String>) -> Self {
        Self::Malformed { format, what: what.into(), offset }
    }
}

/// The result of reading a model.
pub type Result<T, E = LoadError> = std::result::Result<T, E>;
