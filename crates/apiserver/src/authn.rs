//! Who asks: an identity in process, a client certificate, a token, or nobody in particular.
//!
//! A credential that is there but wrong is refused; only its absence makes a request anonymous.
//! Not here: what the user may do ([`crate::authz`]).

mod tokens;

use std::collections::BTreeMap;

use http::header::{self, HeaderMap};
use http::request::Parts;
use serde_json::{Value, json};

pub use tokens::{Bound, ISSUER, Tokens};

use crate::error::{ApiError, Result};
use crate::server::ApiServer;

/// The sender of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Such as `system:serviceaccount:kubeflow:workflows`.
    pub name: String,
    /// Identity of the account, where it has one.
    pub uid: String,
    /// Groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// Further claims.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An authenticated user.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|one| (*one).to_owned()).collect();
        groups.push("system:authenticated".into());
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A ServiceAccount, as its token would make it.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        Self::new(user, &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")])
    }

    /// A node.
    pub fn node(name: &str) -> Self {
        Self::new(format!("system:node:{name}"), &["system:nodes"])
    }

    /// Whoever may do everything.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &["system:masters"])
    }

    /// Who sent no credentials.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..Self::default()
        }
    }

    /// True for members of `system:masters`.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|one| one == "system:masters")
    }

    /// `UserInfo` of the authentication API.
    pub fn to_value(&self) -> Value {
        let mut out = json!({ "username": self.name, "groups": self.groups });
        if !self.uid.is_empty() {
            out["uid"] = self.uid.clone().into();
        }
        if !self.extra.is_empty() {
            out["extra"] = json!(self.extra);
        }
        out
    }
}

/// Subject of a client certificate that TLS has verified; an extension of the request.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// Common name: the user.
    pub user: String,
    /// Organisations: the groups.
    pub groups: Vec<String>,
}

impl ClientCertificate {
    /// Reads a verified certificate; `None` when it names no user.
    pub fn read(der: &[u8]) -> Option<Self> {
        use x509_parser::prelude::FromDer as _;
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups =
            subject.iter_organization().filter_map(|one| one.as_str().ok()).map(Into::into).collect();
        (!user.is_empty()).then_some(Self { user, groups })
    }
}

/// Finds out who sent a request.
///
/// # Errors
/// `Unauthorized` for credentials that do not hold.
pub fn authenticate(server: &ApiServer, parts: &Parts) -> Result<UserInfo> {
    if let Some(user) = parts.extensions.get::<UserInfo>() {
        return Ok(user.clone());
    }
    if let Some(certificate) = parts.extensions.get::<ClientCertificate>() {
        let groups: Vec<&str> = certificate.groups.iter().map(String::as_str).collect();
        return Ok(UserInfo::new(certificate.user.as_str(), &groups));
    }
    let Some(token) = bearer(&parts.headers) else { return Ok(UserInfo::anonymous()) };
    server.tokens.authenticate(server, &token, &[]).ok_or_else(ApiError::unauthorized)
}

/// The token of a request: from `Authorization`, or where browsers put it for WebSockets.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// Lets a user who may act as another one.
///
/// # Errors
/// `Forbidden` without the right to impersonate.
pub fn impersonate(server: &ApiServer, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo> {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(Into::into).collect()
    };
    let Some(name) = texts("impersonate-user").into_iter().next() else { return Ok(user) };
    let wanted = texts("impersonate-group");
    crate::authz::require_impersonation(server, &user, &name, &wanted)?;
    let mut groups = wanted;
    if groups.is_empty()
        && let Some((namespace, _)) =
            name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
    {
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let everyone = if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|one| one == everyone) {
        groups.push(everyone.into());
    }
    Ok(UserInfo { name, groups, ..UserInfo::default() })
}
