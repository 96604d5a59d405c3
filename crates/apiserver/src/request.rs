//! What a request asks for, read from its path, query and headers; pure.
//!
//! Not here: whether it may (that is `authz`) and doing it (that is `handlers`).

use http::{HeaderMap, Method, Uri};

use crate::error::{ApiError, Result};

/// The parts of a path and what the request does with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; or the HTTP method in lower case.
    pub verb: String,
    /// The whole path.
    pub path: String,
    /// False for discovery, health and the like.
    pub is_resource: bool,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, empty for cluster scope and for all namespaces.
    pub namespace: String,
    /// Resource name in the path.
    pub resource: String,
    /// Subresource or empty.
    pub subresource: String,
    /// Object or empty.
    pub name: String,
}

/// Query parameters, decoded, in order.
#[derive(Debug, Clone, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    /// Decodes a query string.
    pub fn parse(uri: &Uri) -> Self {
        let text = uri.query().unwrap_or("");
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key, true), percent_decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter; empty when absent.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).unwrap_or("")
    }

    /// Every value of a parameter.
    pub fn all(&self, key: &str) -> Vec<&str> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    }

    /// True for `true`, `1` and an empty value, as upstream's query conversion.
    pub fn flag(&self, key: &str) -> bool {
        let value = self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        value.is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// An integer.
    ///
    /// # Errors
    /// `BadRequest` when it is none.
    pub fn int(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }
}

/// Decodes `%41` and, in queries, `+`.
pub fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = bytes.get(index + 1..index + 3).and_then(|two| std::str::from_utf8(two).ok());
        match (bytes[index], hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                index += 3;
                continue;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl RequestInfo {
    /// Reads a request line.
    pub fn parse(method: &Method, uri: &Uri, query: &Query) -> Self {
        let path = uri.path();
        let mut info = Self {
            verb: method.as_str().to_lowercase(),
            path: percent_decode(path, false),
            ..Self::default()
        };
        let parts: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(|part| percent_decode(part, false)).collect();
        let rest = match parts.first().map(String::as_str) {
            Some("api") if parts.len() >= 3 => {
                info.version = parts[1].clone();
                &parts[2..]
            }
            Some("apis") if parts.len() >= 4 => {
                info.group = parts[1].clone();
                info.version = parts[2].clone();
                &parts[3..]
            }
            _ => return info,
        };
        info.is_resource = true;
        let (rest, forced_watch) = match rest {
            [first, tail @ ..] if first == "watch" && !tail.is_empty() => (tail, true),
            all => (all, false),
        };
        info.read_resource(rest);
        info.verb = verb(method, &info, query, forced_watch).into();
        info
    }

    fn read_resource(&mut self, parts: &[String]) {
        let is_scope = parts.first().is_some_and(|one| one == "namespaces") && parts.len() > 2;
        let own_subresource = parts.get(2).is_some_and(|one| one == "status" || one == "finalize");
        let parts = if is_scope && !own_subresource {
            self.namespace = parts[1].clone();
            &parts[2..]
        } else {
            if parts.first().is_some_and(|one| one == "namespaces")
                && let Some(name) = parts.get(1)
            {
                self.namespace = name.clone();
            }
            parts
        };
        let part = |index: usize| parts.get(index).cloned().unwrap_or_default();
        self.resource = part(0);
        self.name = part(1);
        self.subresource = part(2);
    }
}

fn verb(method: &Method, info: &RequestInfo, query: &Query, forced_watch: bool) -> &'static str {
    let named = !info.name.is_empty();
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        Method::GET | Method::HEAD if forced_watch => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD if query.flag("watch") => "watch",
        Method::GET | Method::HEAD => "list",
        _ => "",
    }
}

/// In which form the answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The object itself.
    #[default]
    Plain,
    /// A `Table`, as kubectl shows.
    Table,
    /// Metadata alone.
    Metadata,
}

/// What the client accepts, in so far as there is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accept {
    /// Form of the answer.
    pub form: Form,
    /// YAML instead of JSON.
    pub yaml: bool,
    /// Aggregated discovery understood.
    pub aggregated_discovery: bool,
    /// gzip understood.
    pub gzip: bool,
}

impl Accept {
    /// Plain JSON, compressed where the client takes that.
    pub fn plain(headers: &HeaderMap) -> Self {
        let encodings =
            headers.get(http::header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
        let gzip = encodings.split(',').any(|one| one.trim().starts_with("gzip"));
        Self { gzip, ..Self::default() }
    }

    /// Takes the first acceptable clause, as upstream does (weights are ignored there too).
    ///
    /// # Errors
    /// `NotAcceptable` when only forms are accepted that this server does not write, such as protobuf.
    pub fn parse(headers: &HeaderMap) -> Result<Self> {
        let header =
            |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or("");
        let gzip = header(http::header::ACCEPT_ENCODING).split(',').any(|one| one.trim().starts_with("gzip"));
        let text = header(http::header::ACCEPT);
        let mut out = Self { gzip, ..Self::default() };
        if text.trim().is_empty() {
            return Ok(out);
        }
        for clause in text.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or("");
            let params: Vec<(&str, &str)> = parts.filter_map(|one| one.split_once('=')).collect();
            let param =
                |key: &str| params.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| *value);
            out.yaml = match media {
                "application/yaml" => true,
                "application/json" | "*/*" | "application/*" | "text/plain" | "text/*" | "text/html" => false,
                _ => continue,
            };
            out.form = match (param("as"), param("g"), param("v")) {
                ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => {
                    out.aggregated_discovery = true;
                    Form::Plain
                }
                ("Table", "meta.k8s.io", "v1") => Form::Table,
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                    Form::Metadata
                }
                ("", ..) => Form::Plain,
                _ => continue,
            };
            return Ok(out);
        }
        Err(ApiError::not_acceptable(&["application/json", "application/yaml"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        RequestInfo::parse(&method.parse().unwrap(), &uri, &Query::parse(&uri))
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let cases = [
            ("GET", "/api/v1/namespaces", "list||||namespaces|"),
            ("GET", "/api/v1/namespaces/a", "get||a|a|namespaces|"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update||a|a|namespaces|finalize"),
            ("GET", "/api/v1/namespaces/a/pods?watch=true", "watch||a||pods|"),
            ("GET", "/api/v1/namespaces/a/pods/p/log", "get||a|p|pods|log"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create|apps|a||deployments|"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection|apps|a||deployments|"),
            ("GET", "/api/v1/watch/pods", "watch||||pods|"),
            ("GET", "/api/v1/nodes/n%41", "get|||nA|nodes|"),
        ];
        for (method, uri, want) in cases {
            let got = info(method, uri);
            let got = format!(
                "{}|{}|{}|{}|{}|{}",
                got.verb, got.group, got.namespace, got.name, got.resource, got.subresource
            );
            assert_eq!(got, want, "{method} {uri}");
        }
        assert!(!info("GET", "/apis/apps/v1").is_resource);
        assert_eq!(info("GET", "/healthz").verb, "get");
    }

    #[test]
    fn the_first_acceptable_form_wins() {
        let accept = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, text.parse().unwrap());
            Accept::parse(&headers).map(|one| (one.form, one.yaml, one.aggregated_discovery))
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(table).unwrap().0, Form::Table);
        let proto = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(proto).unwrap(), (Form::Plain, false, false));
        assert!(
            accept("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
                .unwrap()
                .2
        );
        assert_eq!(accept("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
    }
}
