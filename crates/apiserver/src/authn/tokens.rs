//! ServiceAccount tokens: JSON Web Tokens, bound to an account and maybe to a pod or Secret, good as long as those exist.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::UserInfo;
use crate::error::{ApiError, Result};
use crate::object;
use crate::pki::Pki;
use crate::server::ApiServer;

/// Who issues, and for whom when nobody says.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const CLAIM: &str = "kubernetes.io";

/// What a token is bound to beside its account.
#[derive(Debug, Clone)]
pub struct Bound {
    /// `pod`, `secret` or `node`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Makes and checks tokens.
pub struct Tokens {
    signing: EncodingKey,
    checking: DecodingKey,
    key_id: String,
    point: Vec<u8>,
    admin: Option<String>,
}

impl Tokens {
    /// Reads the signing key.
    ///
    /// # Errors
    /// A key that cannot be read.
    pub fn new(pki: &Pki, admin: Option<String>) -> Result<Self> {
        let bad = |error: &dyn std::fmt::Display| {
            ApiError::internal(format!("the token key cannot be read: {error}"))
        };
        let pair = rcgen::KeyPair::from_pem(&pki.token_key).map_err(|error| bad(&error))?;
        let point = pair.public_key_raw().to_vec();
        let signing = EncodingKey::from_ec_pem(pki.token_key.as_bytes()).map_err(|error| bad(&error))?;
        let checking =
            DecodingKey::from_ec_pem(pki.token_public_key.as_bytes()).map_err(|error| bad(&error))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(pki.token_public_key.as_bytes()));
        Ok(Self { signing, checking, key_id, point, admin: admin.filter(|token| !token.is_empty()) })
    }

    /// A new token for an account.
    ///
    /// # Errors
    /// A failure to sign.
    pub fn issue(
        &self,
        account: &Value,
        bound: Option<&Bound>,
        audiences: &[String],
        seconds: i64,
    ) -> Result<(String, i64)> {
        let now = jiff::Timestamp::now().as_second();
        let expires = now + seconds;
        let (namespace, name) = (object::namespace(account), object::name(account));
        let mut own = json!({
            "namespace": namespace,
            "serviceaccount": { "name": name, "uid": object::uid(account) },
        });
        if let Some(bound) = bound {
            own[bound.kind] = json!({ "name": bound.name, "uid": bound.uid });
        }
        let default = [ISSUER.to_owned()];
        let audiences = if audiences.is_empty() { &default[..] } else { audiences };
        let claims = json!({
            "iss": ISSUER, "aud": audiences, "exp": expires, "iat": now, "nbf": now,
            "jti": uuid::Uuid::new_v4().to_string(),
            "sub": format!("system:serviceaccount:{namespace}:{name}"), CLAIM: own,
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).map_err(ApiError::internal)?;
        Ok((token, expires))
    }

    /// The user behind a token; `None` when it does not hold.
    pub fn authenticate(&self, server: &ApiServer, token: &str, audiences: &[String]) -> Option<UserInfo> {
        if let Some(admin) = &self.admin
            && same(admin.as_bytes(), token.as_bytes())
        {
            return Some(UserInfo::admin());
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = 10;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        let own = [ISSUER.to_owned()];
        validation.set_audience(if audiences.is_empty() { &own } else { audiences });
        validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
        let claims =
            jsonwebtoken::decode::<Map<String, Value>>(token, &self.checking, &validation).ok()?.claims;
        let own = claims.get(CLAIM)?;
        let namespace = object::text(own, "/namespace");
        let name = object::text(own, "/serviceaccount/name");
        let account = server.read_key(&format!("/core/serviceaccounts/{namespace}/{name}"))?;
        if object::uid(&account) != object::text(own, "/serviceaccount/uid") {
            return None;
        }
        let mut user = UserInfo::service_account(namespace, name);
        user.uid = object::uid(&account).to_owned();
        let id = claims.get("jti").and_then(Value::as_str).unwrap_or("");
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
        check_bound(server, namespace, own, &mut user)?;
        Some(user)
    }

    /// The public key as a JSON Web Key set.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, then both coordinates.
        let part = |from: usize| {
            self.point.get(from..from + 32).map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).unwrap_or_default()
        };
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": part(1), "y": part(33),
        }] })
    }

    /// `/.well-known/openid-configuration`.
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// A bound object must still be the one that it was.
fn check_bound(server: &ApiServer, namespace: &str, claim: &Value, user: &mut UserInfo) -> Option<()> {
    for (kind, prefix) in [("pod", "/core/pods/"), ("secret", "/core/secrets/")] {
        let Some(bound) = claim.get(kind) else { continue };
        let name = object::text(bound, "/name");
        let found = server.read_key(&format!("{prefix}{namespace}/{name}"))?;
        if object::uid(&found) != object::text(bound, "/uid") {
            return None;
        }
        if kind == "pod" {
            let mut add = |key: &str, value: &str| {
                user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            };
            add("pod-name", name);
            add("pod-uid", object::uid(&found));
            let node = object::text(&found, "/spec/nodeName");
            if !node.is_empty() {
                add("node-name", node);
            }
        }
    }
    Some(())
}

/// Compares without telling by time where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.iter().zip(b.iter()).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}
