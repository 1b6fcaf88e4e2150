//! The certificate of a listener, read again when its files change: those who renew it every few weeks need not restart anything.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::tls;

/// How often the files are looked at.
const REREAD: Duration = Duration::from_secs(5);
/// What is offered by ALPN, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first (PEM).
    pub chain: PathBuf,
    /// The key (PEM).
    pub key: PathBuf,
}

/// What a listener proves itself with now.
pub struct ServerCertificates {
    files: CertificateFiles,
    current: ArcSwap<ServerConfig>,
}

impl ServerCertificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When they can't be read or don't belong together.
    pub fn new(files: CertificateFiles) -> Result<Self, tls::Error> {
        let current = ArcSwap::from_pointee(tls::server(&files.chain, &files.key, &PROTOCOLS)?);
        Ok(Self { files, current })
    }

    /// What takes the next handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again whenever they change, until `stop` is cancelled. What can't be used leaves what was; it may be half written.
    pub async fn reread(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.bytes().await.ok();
        let mut tick = tokio::time::interval(REREAD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let bytes = match self.bytes().await {
                Ok(bytes) if seen.as_ref() == Some(&bytes) => continue,
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "the listener's certificate can't be read again");
                    continue;
                }
            };
            match tls::server(&self.files.chain, &self.files.key, &PROTOCOLS) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    tracing::info!("the listener has another certificate");
                }
                Err(error) => tracing::warn!(%error, "the listener keeps its certificate"),
            }
            seen = Some(bytes);
        }
    }

    async fn bytes(&self) -> io::Result<[Vec<u8>; 2]> {
        Ok([tokio::fs::read(&self.files.chain).await?, tokio::fs::read(&self.files.key).await?])
    }
}
