//! TLS for `https://` servers: rustls over ring, trusting what the system trusts.
//!
//! Invariant: the system's certificates are read only when an https server is about to be spoken to; reading them takes longer than
//! everything else that a command does. `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::Error;

/// Speaks TLS over `stream` to `host`, whose certificate must be good for that name.
pub(crate) async fn wrap(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
        return Err(Error::usage(format!(
            "https needs the system's root certificates: {why}; SSL_CERT_FILE names a file of them"
        )));
    }
    let failed = |what: &str| Error::lost(format!("TLS with {host}: {what}"));
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::usage(format!("server: `{host}` is no host name")))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| failed(&error.to_string()))
}
