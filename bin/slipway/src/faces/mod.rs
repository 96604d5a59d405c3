//! The HTTP faces on loopback (pipelines, registry, artifacts, gateway) and who may call them.
//!
//! Loopback is not a friend: other users of the machine and web pages in a browser reach it too. So a face answers a peer
//! whose socket belongs to the cluster's owner (or root), or who shows the cluster's token; it refuses foreign `Host` and
//! `Origin` headers (DNS rebinding, cross-site requests) and grants no CORS.

mod guard;
mod peer;

use std::{collections::HashSet, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Response, header},
    middleware,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use guard::Refusal;
use peer::PeerListener;

/// Who is let in.
#[derive(Debug)]
pub struct Trust {
    /// Users whose sockets are trusted.
    pub uids: HashSet<u32>,
    /// The cluster's token, for everybody else.
    pub token: String,
}

impl Trust {
    /// Trusts the owner of this process and root, and whoever holds the token.
    pub fn of_owner(token: String) -> Self {
        let uids = HashSet::from([rustix::process::geteuid().as_raw(), 0]);
        Self { uids, token }
    }
}

/// Renders a refusal in a face's own error shape.
pub type RenderRefusal = fn(&Refusal) -> Response<Body>;

/// The rules of one face.
#[derive(Clone)]
pub struct Rules {
    /// Who is let in.
    pub trust: Arc<Trust>,
    /// The face checks hosts itself (the gateway routes by them and knows no others).
    pub any_host: bool,
    /// How it says no.
    pub render: RenderRefusal,
}

/// How a face says no: MLflow's, KFP's or KServe's error body.
pub fn renderer(face: &str) -> RenderRefusal {
    match face {
        "mlflow" => |refusal| {
            let code = match refusal {
                Refusal::Untrusted(_) => "UNAUTHENTICATED",
                Refusal::ForeignHost(_) | Refusal::ForeignOrigin(_) => "PERMISSION_DENIED",
            };
            json_answer(refusal, &json!({ "error_code": code, "message": refusal.to_string() }))
        },
        "pipelines" => |refusal| {
            // google.rpc.Code: 16 is UNAUTHENTICATED, 7 is PERMISSION_DENIED.
            let code = if matches!(refusal, Refusal::Untrusted(_)) { 16 } else { 7 };
            json_answer(refusal, &json!({ "code": code, "message": refusal.to_string(), "details": [] }))
        },
        _ => |refusal| json_answer(refusal, &json!({ "error": refusal.to_string() })),
    }
}

fn json_answer(refusal: &Refusal, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = refusal.status();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Serves a face until the token is cancelled.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    rules: Rules,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let guarded = router.layer(middleware::from_fn_with_state(rules, guard::check));
    axum::serve(PeerListener(listener), guarded.into_make_service_with_connect_info::<peer::Peer>())
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}
