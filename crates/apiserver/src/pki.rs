//! The cluster's own certificate authority and keys, made once and kept under `DATA/pki` with mode 0600.
//!
//! The server's certificate is made anew at each start, because the addresses it must name may have changed; clients trust
//! the authority. Not here: who a certificate's subject may be ([`crate::authn`]).

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

/// Days that a client or server certificate holds.
const LEAF_DAYS: i64 = 365;
/// Days that the authority holds.
const CA_DAYS: i64 = 3650;

/// Why keys and certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file in it.
    #[error("cannot {doing} {path:?}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A key or certificate that cannot be made or read.
    #[error("cannot {doing}")]
    Certificate {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: rcgen::Error,
    },
    /// TLS does not take what was made.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

fn certificate(doing: &'static str) -> impl FnOnce(rcgen::Error) -> Error {
    move |source| Error::Certificate { doing, source }
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8.
    pub key: String,
}

/// The authority, the keys, and what is made from them.
#[derive(Clone)]
pub struct Pki {
    ca: Identity,
    /// Client certificate of the administrator: `O=system:masters`.
    pub admin: Identity,
    /// Signs ServiceAccount tokens: P-256, PKCS #8 PEM.
    pub token_key: String,
    /// The public half, PEM.
    pub token_public_key: String,
}

impl Pki {
    /// Opens `DIR`, making what is not there yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| Error::File { doing: "make the folder", path: dir.into(), source })?;
        let ca = keep(dir, "ca", make_ca)?;
        let admin = keep(dir, "admin", || {
            leaf(&ca, "kubernetes-admin", &["system:masters"], Vec::new(), Use::Client)
        })?;
        let token = keep(dir, "sa", make_token_key)?;
        Ok(Self { ca, admin, token_key: token.key, token_public_key: token.certificate })
    }

    /// The authority's certificate, PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.ca.certificate
    }

    /// A client certificate for a user and groups.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Identity, Error> {
        leaf(&self.ca, user, groups, Vec::new(), Use::Client)
    }

    /// A server certificate for more names than its own.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn server(&self, addresses: &[IpAddr], names: &[&str]) -> Result<Identity, Error> {
        let mut sans = Vec::new();
        let own = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        for name in own.iter().chain(names) {
            let text = (*name).try_into().map_err(certificate("name the server"))?;
            sans.push(SanType::DnsName(text));
        }
        let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        sans.extend(loopback.iter().chain(addresses).map(|address| SanType::IpAddress(*address)));
        leaf(&self.ca, "kube-apiserver", &[], sans, Use::Server)
    }

    /// TLS for the server: its certificate for these addresses, client certificates optional and checked.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn server_tls(
        &self,
        addresses: &[IpAddr],
        names: &[&str],
    ) -> Result<Arc<rustls::ServerConfig>, Error> {
        let tls = |error: &dyn std::fmt::Display| Error::Tls(error.to_string());
        let identity = self.server(addresses, names)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let ca =
            CertificateDer::from_pem_slice(self.ca.certificate.as_bytes()).map_err(|error| tls(&error))?;
        roots.add(ca).map_err(|error| tls(&error))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| tls(&error))?;
        let chain =
            CertificateDer::from_pem_slice(identity.certificate.as_bytes()).map_err(|error| tls(&error))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| tls(&error))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![chain], key)
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A kubeconfig with embedded certificates, as YAML; cluster, user and context have the name given.
    pub fn kubeconfig(&self, server: &str, name: &str) -> String {
        let encoded = |text: &str| STANDARD.encode(text);
        let value: Value = json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": name,
            "clusters": [{ "name": name, "cluster": {
                "server": server, "certificate-authority-data": encoded(&self.ca.certificate),
            } }],
            "users": [{ "name": name, "user": {
                "client-certificate-data": encoded(&self.admin.certificate),
                "client-key-data": encoded(&self.admin.key),
            } }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        });
        serde_yaml_ng::to_string(&value).expect("plain maps and strings are YAML")
    }
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Use {
    Client,
    Server,
}

/// Reads `NAME.crt` and `NAME.key`, or makes and writes them.
fn keep(dir: &Path, name: &str, make: impl FnOnce() -> Result<Identity, Error>) -> Result<Identity, Error> {
    let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    if cert.exists() && key.exists() {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| Error::File {
                doing: "read",
                path: path.into(),
                source,
            })
        };
        return Ok(Identity { certificate: read(&cert)?, key: read(&key)? });
    }
    let identity = make()?;
    // The key first: a certificate without its key would look complete to nobody.
    write_private(&key, &identity.key)?;
    write_private(&cert, &identity.certificate)?;
    Ok(identity)
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |doing| move |source| Error::File { doing, path: path.into(), source };
    let draft = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(failed("create"))?;
    file.write_all(text.as_bytes()).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    fs::rename(&draft, path).map_err(failed("put in place"))
}

fn make_token_key() -> Result<Identity, Error> {
    let key = KeyPair::generate().map_err(certificate("make the token key"))?;
    Ok(Identity { certificate: key.public_key_pem(), key: key.serialize_pem() })
}

fn validity(params: &mut CertificateParams, days: i64) {
    let second = jiff::Timestamp::now().as_second();
    let at = |seconds: i64| {
        let date = jiff::Timestamp::from_second(seconds)
            .unwrap_or_default()
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date();
        let month = u8::try_from(date.month()).unwrap_or(1);
        let day = u8::try_from(date.day()).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    const DAY: i64 = 86_400;
    // A day back, for clocks that differ.
    params.not_before = at(second - DAY);
    params.not_after = at(second + days * DAY);
}

fn make_ca() -> Result<Identity, Error> {
    let key = KeyPair::generate().map_err(certificate("make the authority's key"))?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("slipway-ca-{}", &uuid::Uuid::new_v4().to_string()[..8]));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    validity(&mut params, CA_DAYS);
    let signed = params.self_signed(&key).map_err(certificate("sign the authority"))?;
    Ok(Identity { certificate: signed.pem(), key: key.serialize_pem() })
}

fn leaf(
    ca: &Identity,
    user: &str,
    groups: &[&str],
    sans: Vec<SanType>,
    usage: Use,
) -> Result<Identity, Error> {
    let ca_key = KeyPair::from_pem(&ca.key).map_err(certificate("read the authority's key"))?;
    let issuer =
        Issuer::from_ca_cert_pem(&ca.certificate, ca_key).map_err(certificate("read the authority"))?;
    let key = KeyPair::generate().map_err(certificate("make a key"))?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for group in groups {
        name.push(DnType::OrganizationName, *group);
    }
    name.push(DnType::CommonName, user);
    params.distinguished_name = name;
    params.subject_alt_names = sans;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match usage {
        Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    validity(&mut params, LEAF_DAYS);
    let signed = params.signed_by(&key, &issuer).map_err(certificate("sign a certificate"))?;
    Ok(Identity { certificate: signed.pem(), key: key.serialize_pem() })
}
