//! A private server of any other kind, such as the brokers that Usher is compared with.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;

use tokio::net::TcpStream;

use super::error::Error;
use super::resources::{MAX_PORT_ATTEMPTS, free_port, private_dir};
use super::supervised::{ServerLog, SupervisedServer};

/// A server that belongs to this process. Dropping it stops the server without waiting for it.
pub struct PrivateServer {
    server: SupervisedServer,
    port: u16,
}

impl PrivateServer {
    /// Starts `program` with the arguments for its directory and for a free port of 127.0.0.1.
    /// Returns once the port accepts connections.
    ///
    /// # Errors
    /// [`Error::DirectoryInUse`] while another server runs on `dir`, [`Error::Ended`] or
    /// [`Error::NotReady`] when the server does not start.
    pub async fn start(
        server: &'static str,
        program: &Path,
        dir: &Path,
        arguments: impl Fn(&Path, u16) -> Vec<OsString>,
    ) -> Result<Self, Error> {
        let dir = private_dir(dir)?;
        let mut attempt = 1;
        loop {
            let port = free_port()?;
            let log = ServerLog::lock(server, dir.join("server.log")).await?;
            let is_ready =
                |_| async move { TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() };
            match SupervisedServer::start(&log, program, &arguments(&dir, port), port, is_ready)
                .await
            {
                Ok(server) => return Ok(Self { server, port }),
                Err(Error::PortTaken { .. }) if attempt < MAX_PORT_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Stops the server with SIGTERM and waits for it, about 30 seconds at most.
    ///
    /// # Errors
    /// [`Error::NotStopped`] when the server was killed or ended with an error.
    pub async fn stop(self) -> Result<(), Error> {
        self.server.stop().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::TempDir;
    use super::*;

    #[tokio::test]
    async fn server_listens_on_its_port_until_stopped() {
        let dir = TempDir::new("other").unwrap();
        // Any server will do; Redis is installed for the tests.
        let redis = super::super::programs::find_program(
            &["redis-server", "valkey-server"],
            "redis-server",
        )
        .unwrap();
        let arguments = |dir: &Path, port: u16| {
            vec![
                "--port".into(),
                port.to_string().into(),
                "--save".into(),
                "".into(),
                "--dir".into(),
                dir.into(),
            ]
        };
        let server = PrivateServer::start("Redis", &redis, dir.path(), arguments).await.unwrap();
        let port = server.port();
        server.stop().await.unwrap();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err());
    }
}
