//! Why a request did not reach a model.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};

/// Why the gateway refused or failed a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the host nor the path names an InferenceService.
    #[error(
        "no InferenceService answers to host \"{host}\" and path \"{path}\": a host of some `status.url` or \
         /serving/<namespace>/<name>/… was expected; `kubectl get inferenceservices -A` lists them"
    )]
    NoRoute {
        /// The `Host` header.
        host: String,
        /// The path.
        path: String,
    },
    /// The InferenceService is known but not ready.
    #[error("InferenceService {namespace}/{name} is not ready")]
    NotReady {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The model server could not be reached or broke off.
    #[error("InferenceService {namespace}/{name} did not answer")]
    Upstream {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the connection said.
        source: hyper_util::client::legacy::Error,
    },
    /// Longer than [`crate::proxy::ANSWER_MAX`] without response headers.
    #[error("InferenceService {namespace}/{name} did not answer within {seconds} s")]
    TimedOut {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The bound.
        seconds: u64,
    },
    /// Too many requests are on their way already.
    #[error("{bound} requests are on their way; try again")]
    Busy {
        /// The bound.
        bound: usize,
    },
}

impl Error {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::NotReady { .. } | Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The answer, in KServe's V1 error shape.
    pub fn response(&self) -> Response<Body> {
        let body = serde_json::json!({ "error": self.to_string() }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
