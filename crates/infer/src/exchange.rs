//! What a protocol is to the server: a body in, a reply out, tensors between.
//!
//! Each protocol implements [`Protocol`] once and is written against nothing else: no socket, no thread, no queue.
//! Its value lives as long as a connection and is where it keeps buffers from call to call; a large call takes the
//! value along to a compute thread and brings it back.
//!
//! To add one: implement the trait in `routes/`, add a [`Kind`] and a field of `Scratch` (`connection`), and let
//! `routes::route` return it.
//!
//! Not here: HTTP (`http`, `connection`), what a path means (`routes`).

use std::sync::Arc;
use std::time::Duration;

use models::Outputs;

use crate::evaluate::Inputs;
use crate::http::Meta;
use crate::metrics::{Api, Entry};
use crate::refusal::{Reason, Refusal};
use crate::served::Served;

/// A message with its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The body, decompressed.
    pub(crate) body: &'a [u8],
    /// What its headers say.
    pub(crate) meta: &'a Meta,
}

/// What a body asks for, besides its tensors.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// How many rows.
    pub(crate) rows: usize,
    /// 1 is the most urgent; 0 is the model's default.
    pub(crate) priority: u32,
    /// How long an answer is of use, where the body says so; the headers' word counts too.
    pub(crate) timeout: Option<Duration>,
}

/// What is answered. The buffers are reused.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Why it is a refusal, if it is one.
    pub(crate) reason: Option<Reason>,
    /// The content type.
    pub(crate) kind: &'static str,
    pub(crate) body: Vec<u8>,
    /// More headers, each as `\r\nname: value`.
    pub(crate) headers: Vec<u8>,
}

/// The content type of nearly everything.
pub(crate) const JSON: &str = "application/json";

impl Reply {
    /// Forgets the last reply.
    pub(crate) fn clear(&mut self) {
        self.status = 200;
        self.reason = None;
        self.kind = JSON;
        self.body.clear();
        self.headers.clear();
    }

    /// Adds a header. Line breaks in a value would be another header, so they become spaces.
    pub(crate) fn header(&mut self, name: &str, value: &str) {
        self.headers.extend_from_slice(b"\r\n");
        self.headers.extend_from_slice(name.as_bytes());
        self.headers.extend_from_slice(b": ");
        self.headers.extend(value.bytes().map(|byte| if byte < 0x20 || byte == 0x7f { b' ' } else { byte }));
    }
}

/// A protocol's way from a body to a reply.
pub(crate) trait Protocol: Default + Send + 'static {
    /// The signature of the version that the body asks for, where that is another than the default one. `served` has
    /// more than one.
    fn choose(&self, served: &Served, body: &[u8]) -> Result<Option<Arc<Served>>, Refusal> {
        let _ = (served, body);
        Ok(None)
    }

    /// What its calls are counted as.
    fn way(&self) -> (Api, Entry);

    /// Another one for the same kind of call, with buffers of its own.
    fn another(&self) -> Self {
        Self::default()
    }

    /// Reads the body into the value's buffers.
    fn parse(&mut self, served: &Served, message: Message<'_>) -> Result<Asked, Refusal>;

    /// The tensors that were read, in the order of the signature. `body` is the one that was parsed.
    fn inputs<'a>(&'a self, served: &'a Served, body: &'a [u8]) -> Result<Inputs<'a>, Refusal>;

    /// Writes the answer: status, kind and body of a reply that comes cleared. `body` is the one that was parsed.
    fn write(
        &mut self,
        served: &Served,
        body: &[u8],
        outputs: &Outputs,
        reply: &mut Reply,
    ) -> Result<(), Refusal>;

    /// Writes a refusal into a reply that comes cleared with the status set. `served` is absent where none was found.
    fn refuse(&mut self, served: Option<&Served>, refusal: &Refusal, reply: &mut Reply);

    /// Gives back what a large call left, so that idle connections stay small.
    fn shrink(&mut self);
}

/// Which protocol a call speaks, with what its path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// KServe's V1 `:predict`.
    V1,
    /// The Open Inference Protocol's `/infer`.
    V2,
    /// KServe's V1 `:explain`.
    Explain,
    /// TensorFlow Serving's calls.
    Tfs(TfsCall),
}

/// A call of TensorFlow Serving's REST API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum TfsCall {
    /// `:predict`.
    #[default]
    Predict,
    /// `:classify`.
    Classify,
    /// `:regress`.
    Regress,
}

impl TfsCall {
    /// What it is counted as.
    pub(crate) fn api(self) -> Api {
        match self {
            Self::Predict => Api::Predict,
            Self::Classify => Api::Classify,
            Self::Regress => Api::Regress,
        }
    }
}
