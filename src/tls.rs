//! TLS for all clients and listeners: rustls with ring, TLS 1.2 and 1.3, certificates from PEM
//! files.
//!
//! A client trusts the certificate authorities of a given file, else Mozilla's list. That list is
//! in the binary, so container images need no certificate store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: pem::Error },
    #[error("{0}: the file contains no certificate")]
    NoCertificate(PathBuf),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl Error {
    fn of(path: &Path) -> impl Fn(pem::Error) -> Self {
        move |cause| Self::File { path: path.to_owned(), cause }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The configuration of a client. It trusts the authorities in the PEM file, else Mozilla's list,
/// and always checks the name of the server.
///
/// # Errors
/// When the file can't be read or contains no certificate.
pub fn client_config(authorities: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
        }
    }
    let config =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The configuration of a listener, with its certificate chain and key (PEM) and its ALPN
/// protocols, preferred first.
///
/// # Errors
/// When a file can't be read, or the key does not match the certificate.
pub fn server_config(chain: &Path, key: &Path, protocols: &[&[u8]]) -> Result<ServerConfig, Error> {
    let private = PrivateKeyDer::from_pem_file(key).map_err(Error::of(key))?;
    let config =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config =
        config.with_no_client_auth().with_single_cert(certificates(chain)?, private)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(Error::of(path))?.collect();
    match all.map_err(Error::of(path))? {
        none if none.is_empty() => Err(Error::NoCertificate(path.to_owned())),
        all => Ok(all),
    }
}
