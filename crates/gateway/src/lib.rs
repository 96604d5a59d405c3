//! The one door to all served models: routes a request by its `Host` or its path to an InferenceService.
//!
//! * `http://<host of status.url>/…` goes to that InferenceService, as KServe's ingress does;
//! * `http://<gateway>/serving/<namespace>/<name>/…` goes there too, for those who cannot set a `Host`.
//!
//! Routes follow a watch of InferenceServices and Services; bodies stream through. Not here: who may call (the faces'
//! guard in `bin/slipway`), how requests spread over pods (the node's Service proxy), canary shares (a later issue).

mod error;
mod proxy;
mod routes;

use std::sync::Arc;

use axum::Router;
use kube::Client;

pub use error::Error;
use proxy::Proxy;
use routes::Routes;

/// The gateway's router, and the task that keeps its routes.
///
/// The future ends only with an error of its watches' set-up; drop it to stop following.
pub fn start(client: Client) -> (Router, impl Future<Output = ()> + Send + 'static) {
    let routes = Arc::new(Routes::default());
    let proxy = Arc::new(Proxy::new(Arc::clone(&routes)));
    let router = Router::new().fallback(proxy::handle).with_state(proxy);
    (router, routes::follow(client, routes))
}
