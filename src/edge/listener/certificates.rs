//! The certificate of a listener. It is reloaded when its files change, so that a renewal needs no
//! restart.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::tls;

const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Preferred protocol first.
const ALPN_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The PEM files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain; the certificate of the server comes first.
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// The current certificate of a listener.
pub struct ServerCertificates {
    files: CertificateFiles,
    current: ArcSwap<ServerConfig>,
}

impl ServerCertificates {
    /// Loads the files.
    ///
    /// # Errors
    /// When a file can't be read, or the key does not match the certificate.
    pub fn new(files: CertificateFiles) -> Result<Self, tls::Error> {
        let current =
            ArcSwap::from_pointee(tls::server_config(&files.chain, &files.key, &ALPN_PROTOCOLS)?);
        Ok(Self { files, current })
    }

    /// Accepts the next handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reloads the files when they change, until `stop` is cancelled. Invalid files keep the
    /// current certificate, because they may be incompletely written.
    pub async fn reload(self: Arc<Self>, stop: CancellationToken) {
        let mut loaded = self.read_files().await.ok();
        let mut tick = tokio::time::interval(RELOAD_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let bytes = match self.read_files().await {
                Ok(bytes) if loaded.as_ref() == Some(&bytes) => continue,
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "the certificate of the listener can't be read");
                    continue;
                }
            };
            match tls::server_config(&self.files.chain, &self.files.key, &ALPN_PROTOCOLS) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    tracing::info!("reloaded the certificate of the listener");
                }
                Err(error) => {
                    tracing::warn!(%error, "the new certificate is invalid, keeping the old one")
                }
            }
            loaded = Some(bytes);
        }
    }

    async fn read_files(&self) -> io::Result<[Vec<u8>; 2]> {
        Ok([tokio::fs::read(&self.files.chain).await?, tokio::fs::read(&self.files.key).await?])
    }
}
