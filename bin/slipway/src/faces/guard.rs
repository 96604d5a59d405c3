//! The rule of the faces, as a pure function of what is known of a request, and the layer that applies it.

use std::{fmt, net::IpAddr};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, Response, StatusCode, header},
    middleware::Next,
};

use super::{Rules, Trust, peer::Peer};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` names something that this face is not.
    ForeignHost(String),
    /// A web page of another origin asks.
    ForeignOrigin(String),
    /// The peer's user is not trusted and shows no valid token.
    Untrusted(Option<u32>),
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ForeignHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::ForeignOrigin(_) => StatusCode::FORBIDDEN,
            Self::Untrusted(_) => StatusCode::UNAUTHORIZED,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignHost(host) => write!(
                out,
                "Host \"{host}\" is not this server: a loopback address, localhost or a cluster name was expected"
            ),
            Self::ForeignOrigin(origin) => {
                write!(out, "requests of pages from \"{origin}\" are not answered")
            }
            Self::Untrusted(Some(uid)) => write!(
                out,
                "user {uid} does not own this cluster; send `Authorization: Bearer` with the token in its data folder"
            ),
            Self::Untrusted(None) => {
                write!(out, "an unknown peer must send `Authorization: Bearer` with a token")
            }
        }
    }
}

/// The layer.
pub async fn check(
    State(rules): State<Rules>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response<Body> {
    match refusal(&rules.trust, rules.any_host, peer.uid, request.headers()) {
        None => next.run(request).await,
        Some(refusal) => {
            tracing::warn!(%refusal, path = request.uri().path(), "refused");
            (rules.render)(&refusal)
        }
    }
}

/// None: let in.
fn refusal(trust: &Trust, any_host: bool, uid: Option<u32>, headers: &HeaderMap) -> Option<Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let host = text(header::HOST);
    if !any_host && !is_ours(host) {
        return Some(Refusal::ForeignHost(host.to_owned()));
    }
    let origin = text(header::ORIGIN);
    let origin_host = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    if !origin.is_empty() && origin_host != host {
        return Some(Refusal::ForeignOrigin(origin.to_owned()));
    }
    let is_trusted = uid.is_some_and(|uid| trust.uids.contains(&uid));
    let token = text(header::AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    let shows_token = !trust.token.is_empty() && same(token.as_bytes(), trust.token.as_bytes());
    (!is_trusted && !shows_token).then_some(Refusal::Untrusted(uid))
}

/// Whether a `Host` header can only have been meant for this machine or cluster.
fn is_ours(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    if let Ok(ip) = name.parse::<IpAddr>() {
        return ip.is_loopback();
    }
    let is_cluster_name = name.ends_with(".svc") || name.ends_with(".svc.cluster.local");
    name == "localhost" || name.ends_with(".localhost") || is_cluster_name
}

/// Compares without telling by its duration how much was right.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn only_the_owner_or_the_token_gets_in_and_only_under_our_names() {
        let trust = Trust { uids: HashSet::from([1000, 0]), token: "secret".into() };
        let foreign_host = |host: &str| Some(Refusal::ForeignHost(host.into()));
        type Headers = &'static [(&'static str, &'static str)];
        let cases: Vec<(&str, Option<u32>, Headers, Option<Refusal>)> = vec![
            ("owner", Some(1000), &[("host", "127.0.0.1:7888")], None),
            ("by name", Some(1000), &[("host", "localhost:7888")], None),
            ("cluster name", Some(1000), &[("host", "ml-pipeline.kubeflow.svc:8888")], None),
            ("other user", Some(1001), &[("host", "127.0.0.1")], Some(Refusal::Untrusted(Some(1001)))),
            ("with token", Some(1001), &[("host", "[::1]:1"), ("authorization", "Bearer secret")], None),
            (
                "bad token",
                None,
                &[("host", "127.0.0.1"), ("authorization", "Bearer secreT")],
                Some(Refusal::Untrusted(None)),
            ),
            ("rebinding", Some(1000), &[("host", "evil.example")], foreign_host("evil.example")),
            ("no host", Some(1000), &[], foreign_host("")),
            (
                "foreign page",
                Some(1000),
                &[("host", "127.0.0.1:1"), ("origin", "https://evil.example")],
                Some(Refusal::ForeignOrigin("https://evil.example".into())),
            ),
            ("own page", Some(1000), &[("host", "127.0.0.1:1"), ("origin", "http://127.0.0.1:1")], None),
        ];
        for (name, uid, pairs, want) in cases {
            let mut headers = HeaderMap::new();
            for (key, value) in pairs {
                headers.insert(axum::http::HeaderName::try_from(*key).unwrap(), value.parse().unwrap());
            }
            assert_eq!(refusal(&trust, false, uid, &headers), want, "{name}");
        }
    }
}
