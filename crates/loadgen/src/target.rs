//! Which server, which model, which protocol: what a user's URL means.
//!
//! Not here: what the model takes (`ask`), the bodies (`body`).

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::{Error, Result};

/// How a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// KServe's V1 in JSON.
    V1,
    /// The Open Inference Protocol in JSON.
    V2,
    /// The same with binary tensors.
    V2Binary,
    /// The same over gRPC.
    Grpc,
    /// TensorFlow Serving's REST.
    Tfs,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Ok(match text {
            "v1" => Self::V1,
            "v2" => Self::V2,
            "v2-binary" => Self::V2Binary,
            "grpc" => Self::Grpc,
            "tfs" => Self::Tfs,
            other => return Err(format!("{other:?} is none of v1, v2, v2-binary, grpc, tfs")),
        })
    }
}

/// A model on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where requests go.
    pub address: SocketAddr,
    /// What the `host` header says.
    pub host: String,
    /// The path of the URL, when it names an endpoint itself.
    pub path: Option<String>,
    /// The model's name; empty until it is known.
    pub model: String,
}

impl Target {
    /// Reads `http://HOST:PORT`, `HOST:PORT`, or a whole endpoint such as `http://HOST:PORT/v1/models/iris:predict`.
    pub fn parse(url: &str) -> Result<Self> {
        let bad = |what: &str| Error::Target(format!("{url:?}: {what}; expected http://HOST:PORT"));
        let rest = match url.split_once("://") {
            Some(("http" | "grpc", rest)) => rest,
            Some(("https", _)) => return Err(bad("TLS would be measured, not the model")),
            Some(_) => return Err(bad("the scheme is not known")),
            None => url,
        };
        let (host, path) = match rest.split_once('/') {
            Some((host, path)) => (host, format!("/{path}")),
            None => (rest, String::new()),
        };
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let mut addresses = with_port.to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| bad("the host has no address"))?;
        let path = Some(path.trim_end_matches('/').to_owned()).filter(|path| !path.is_empty());
        let model = path.as_deref().and_then(model_of).unwrap_or_default().to_owned();
        // A path that only names the model, or its kind, is where endpoints are made below.
        let path = path.filter(|path| path.ends_with(":predict") || path.ends_with("/infer"));
        Ok(Self { address, host: host.to_owned(), path, model })
    }
}

/// The model that a path names: `/v1/models/NAME…`, `/v2/models/NAME…`.
fn model_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v1/models/").or_else(|| path.strip_prefix("/v2/models/"))?;
    rest.split(['/', ':']).next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers_models_and_endpoints() {
        let cases = [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "", None),
            ("127.0.0.1:9/", "127.0.0.1:9", "", None),
            ("http://127.0.0.1/v2/models/iris", "127.0.0.1:80", "iris", None),
            (
                "http://127.0.0.1:8080/v1/models/iris:predict",
                "127.0.0.1:8080",
                "iris",
                Some("/v1/models/iris:predict"),
            ),
            (
                "http://127.0.0.1:1/v2/models/a/versions/2/infer",
                "127.0.0.1:1",
                "a",
                Some("/v2/models/a/versions/2/infer"),
            ),
        ];
        for (url, address, model, path) in cases {
            let target = Target::parse(url).expect(url);
            assert_eq!(
                (target.address.to_string().as_str(), target.model.as_str(), target.path.as_deref()),
                (address, model, path),
                "{url}"
            );
        }
        for url in ["https://127.0.0.1:1", "ftp://127.0.0.1", "http://"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
