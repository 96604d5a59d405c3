//! The HTTP faces on loopback (pipelines, registry, artifacts, gateway) and who may call them.
//!
//! Loopback is not a friend: other users of the machine and web pages in a browser reach it too. So a face answers a peer
//! whose socket belongs to the cluster's owner (or root), or who shows the cluster's token; it refuses foreign `Host` and
//! `Origin` headers (DNS rebinding, cross-site requests) and grants no CORS.

mod guard;
mod peer;

use std::{collections::HashSet, sync::Arc};

use axum::{Router, body::Body, http::Response, middleware};
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

/// Serves a face until the token is cancelled.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    trust: Arc<Trust>,
    render: RenderRefusal,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let guarded = router.layer(middleware::from_fn_with_state(guard::Guard { trust, render }, guard::check));
    axum::serve(PeerListener(listener), guarded.into_make_service_with_connect_info::<peer::Peer>())
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}
