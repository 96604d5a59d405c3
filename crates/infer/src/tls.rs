//! TLS and client certificates, from files that may change while the server runs.
//!
//! Certificates live for weeks at best and are renewed by whoever issued them. The files are looked at when a client
//! connects, at most once a second; what cannot be read leaves the certificate in place that worked, and the log says
//! so.
//!
//! Not here: who may do what.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Pem, Tls};
use crate::listen::Face;

/// For a client to finish the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The certificates of a server's ports.
pub(crate) struct Certificates {
    files: Tls,
    current: ArcSwap<Current>,
    looked: Mutex<Instant>,
}

/// What was read last.
struct Current {
    stamps: Vec<Stamp>,
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
}

/// Tells one content of a file from another: the file itself, its length, its time.
type Stamp = (u64, u64, i64, i64);

impl Certificates {
    /// Reads the files. The error is a text for people.
    pub(crate) fn open(files: Tls) -> Result<Self, String> {
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Self { files, current, looked: Mutex::new(Instant::now()) })
    }

    /// Greets a client; true if it chose HTTP/2.
    pub(crate) async fn greet(
        &self,
        face: Face,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, bool)> {
        self.look();
        let current = self.current.load();
        let config = match face {
            Face::Http | Face::Admin => current.http.clone(),
            Face::Grpc => current.grpc.clone(),
        };
        drop(current);
        let greeted = tokio::time::timeout(HANDSHAKE_MAX, TlsAcceptor::from(config).accept(stream));
        let stream = greeted.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, is_http2))
    }

    /// Reads the files again if they changed.
    fn look(&self) {
        {
            let Some(mut looked) = self.looked.try_lock() else { return };
            if looked.elapsed() < LOOK_EVERY {
                return;
            }
            *looked = Instant::now();
        }
        if stamps(&self.files).is_ok_and(|stamps| stamps == self.current.load().stamps) {
            return;
        }
        match read(&self.files) {
            Ok(current) => {
                self.current.store(Arc::new(current));
                tracing::info!(certificate = ?self.files.certificate, "certificate renewed");
            }
            Err(why) => tracing::error!(why, "the new certificate cannot be used; the old one stays"),
        }
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn stamps(files: &Tls) -> io::Result<Vec<Stamp>> {
    let all = [Some(&files.certificate), Some(&files.key), files.client_authorities.as_ref()];
    let paths = all.into_iter().flatten().filter_map(|pem| match pem {
        Pem::File(path) => Some(path),
        Pem::Text(_) => None,
    });
    paths.map(|path| std::fs::metadata(path).map(|metadata| stamp(&metadata))).collect()
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: String| format!("certificates of {pem:?}: {why}");
    let text = pem.read().map_err(|error| wrong(error.to_string()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("there are none".to_owned())) } else { Ok(all) }
}

fn read(files: &Tls) -> Result<Current, String> {
    // Before the contents: a change while they are read is seen the next time.
    let stamps = stamps(files).map_err(|error| format!("{:?}: {error}", files.certificate))?;
    let chain = certificates(&files.certificate)?;
    let wrong = |error: String| format!("key of {:?}: {error}", files.key);
    let key = files.key.read().map_err(|error| wrong(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| format!("{path:?}: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let grpc = Arc::new(config.clone());
    // Clients that speak both get HTTP/1.1 here; those of gRPC offer HTTP/2 alone.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    Ok(Current { stamps, http: Arc::new(config), grpc })
}
