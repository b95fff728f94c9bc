//! Keys and certificates of one cluster: an authority, the API server's certificate, the key that signs tokens of service accounts.
//!
//! Clients prove who they are by tokens, so nobody but the server has a certificate.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::error::{ClusterError, file};

/// Names under which the API server is reached.
const NAMES: [&str; 3] = ["127.0.0.1", "localhost", "kubernetes.default.svc"];

/// Writes `ca.crt`, `server.crt`, `server.key`, `service-account.key` and `service-account.pub`.
pub(crate) fn write(folder: &Path) -> Result<(), ClusterError> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.distinguished_name.push(DnType::CommonName, "flash-sched test cluster");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = authority.self_signed(&authority_key)?;
    put(folder, "ca.crt", &certificate.pem())?;

    let issuer = Issuer::new(authority, authority_key);
    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    let server = server.signed_by(&server_key, &issuer)?;
    put(folder, "server.crt", &server.pem())?;
    put(folder, "server.key", &server_key.serialize_pem())?;
    let accounts = KeyPair::generate()?;
    put(folder, "service-account.key", &accounts.serialize_pem())?;
    put(folder, "service-account.pub", &accounts.public_key_pem())
}

fn put(folder: &Path, name: &str, text: &str) -> Result<(), ClusterError> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(file("writing", path))
}
