//! TLS to the MQTT broker: trusted certificates, and our own.

use std::path::Path;

use rumqttc::TlsConfiguration;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::broker::{BrokerAccess, BrokerError, read};

/// Reads the certificates.
///
/// # Errors
/// When a file can't be read or is invalid.
pub fn configuration(access: BrokerAccess<'_>) -> Result<TlsConfiguration, BrokerError> {
    let config = ClientConfig::builder().with_root_certificates(roots(access.ca_file)?);
    let config = match (access.cert_file, access.key_file) {
        (None, None) => config.with_no_client_auth(),
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates("--mqtt-cert-file", cert_file)?;
            let option = "--mqtt-key-file";
            let key = PrivateKeyDer::from_pem_slice(&read(option, key_file)?).map_err(|_| {
                content(option, key_file, "there is no private key in it (PEM, not encrypted)")
            })?;
            // Fails too if key and certificate don't match.
            config.with_client_auth_cert(chain, key).map_err(|error| content(option, key_file, error))?
        }
        _ => return Err(BrokerError::HalfACertificate),
    };
    Ok(TlsConfiguration::Rustls(config.into()))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, BrokerError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let option = "--mqtt-ca-file";
            for certificate in certificates(option, path)? {
                roots.add(certificate).map_err(|error| content(option, path, error))?;
            }
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                let errors = native.errors.iter().map(ToString::to_string).collect::<Vec<_>>();
                return Err(BrokerError::NoCertificates(errors.join("; ")));
            }
        }
    }
    Ok(roots)
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let pem = read(option, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| content(option, path, error))?;
    if found.is_empty() {
        return Err(content(option, path, "there is no certificate in it (PEM is expected)"));
    }
    Ok(found)
}

fn content(option: &'static str, path: &Path, reason: impl ToString) -> BrokerError {
    BrokerError::Content { option, path: path.to_owned(), reason: reason.to_string() }
}
