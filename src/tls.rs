//! TLS, one way for all who speak it: rustls with ring, versions 1.2 and 1.3, and certificates from PEM files.
//!
//! A client believes the authorities of a file that it is given, and those of Mozilla's list, which is in the binary, where it is given none: an image without
//! a system's store works too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};

/// What is wrong with a certificate or a key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read, or holds something else.
    #[error("{path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{0}: holds no certificate")]
    Empty(PathBuf),
    /// What the files hold can't be used together.
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

/// How a server is trusted: by the authorities in the file (PEM), else by Mozilla's. Its name is always checked.
///
/// # Errors
/// When the file can't be read or holds no authority.
pub fn client(authorities: Option<&Path>) -> Result<ClientConfig, Error> {
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

/// How a listener proves who it is: by the chain in the one file and the key in the other (PEM). `protocols` are offered in that order.
///
/// # Errors
/// When a file can't be read, or the key is not that of the certificate.
pub fn server(chain: &Path, key: &Path, protocols: &[&[u8]]) -> Result<ServerConfig, Error> {
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
        none if none.is_empty() => Err(Error::Empty(path.to_owned())),
        all => Ok(all),
    }
}
