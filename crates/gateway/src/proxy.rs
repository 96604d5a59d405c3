//! Passes a request on and its answer back, bodies streaming, within bounds.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Response, Uri, header, uri::PathAndQuery},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::Semaphore;

use crate::{
    Error,
    routes::{Choice, Routes, SERVICE_PORT, Target},
};

/// Requests on their way at once; more are refused early.
pub const IN_FLIGHT_MAX: usize = 4096;
/// Time until the answer's headers must be there.
pub const ANSWER_MAX: Duration = Duration::from_secs(300);

/// Headers that mean one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What every request needs.
pub struct Proxy {
    routes: Arc<Routes>,
    client: Client<HttpConnector, Body>,
    slots: Arc<Semaphore>,
}

impl Proxy {
    /// A proxy over the given routes.
    pub fn new(routes: Arc<Routes>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let client =
            Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector);
        Self { routes, client, slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) }
    }
}

/// Answers one request.
pub async fn handle(State(proxy): State<Arc<Proxy>>, request: Request) -> Response<Body> {
    match pass_on(&proxy, request).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%error, "not passed on");
            error.response()
        }
    }
}

async fn pass_on(proxy: &Proxy, mut request: Request) -> Result<Response<Body>, Error> {
    let _slot =
        Arc::clone(&proxy.slots).try_acquire_owned().map_err(|_| Error::Busy { bound: IN_FLIGHT_MAX })?;
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let path = request.uri().path().to_owned();
    let (target, address, rest) = match proxy.routes.choose(&host, &path) {
        Choice::To(target, address, rest) => (target, address, rest),
        Choice::NotReady(Target { namespace, name }) => return Err(Error::NotReady { namespace, name }),
        Choice::None => return Err(Error::NoRoute { host, path }),
    };
    let uri = upstream(&format!("{address}:{SERVICE_PORT}"), rest, request.uri().query());
    *request.uri_mut() = uri.ok_or_else(|| Error::NoRoute { host, path: path.clone() })?;
    remove_hop_by_hop(request.headers_mut());
    let Target { namespace, name } = target;
    let answer = tokio::time::timeout(ANSWER_MAX, proxy.client.request(request)).await;
    match answer {
        Ok(Ok(answer)) => {
            let mut answer = answer.map(Body::new);
            remove_hop_by_hop(answer.headers_mut());
            Ok(answer)
        }
        Ok(Err(source)) => Err(Error::Upstream { namespace, name, source }),
        Err(_) => Err(Error::TimedOut { namespace, name, seconds: ANSWER_MAX.as_secs() }),
    }
}

fn upstream(authority: &str, path: &str, query: Option<&str>) -> Option<Uri> {
    let path_and_query = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    Uri::builder().scheme("http").authority(authority).path_and_query(path_and_query.ok()?).build().ok()
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // `Connection` may name further headers that mean this connection only.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, "close, x-hop".parse().unwrap());
        headers.insert("x-hop", "1".parse().unwrap());
        headers.insert("x-end", "1".parse().unwrap());
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-end"]);
    }

    #[test]
    fn the_query_stays_with_the_path() {
        let uri = upstream("127.9.128.1:8080", "/v1/models/a:predict", Some("x=1")).unwrap();
        assert_eq!(uri, "http://127.9.128.1:8080/v1/models/a:predict?x=1");
    }
}
