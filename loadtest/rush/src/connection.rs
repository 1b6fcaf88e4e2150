//! A kept HTTP/1.1 connection with one request under way: as little work as a client can do, because the generator shares its cores with
//! the service.
//!
//! It reads what Usher writes (a status line, a `content-length`, no chunks) and refuses anything else.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer, in bytes: a seat map of 100,000 seats is not asked for here.
const LONGEST: usize = 4 << 20;

/// A connection, its next request and its last answer.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    request: String,
    input: Vec<u8>,
    body_at: usize,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = connect(address).await?;
        Ok(Self { address, stream, request: String::new(), input: Vec::with_capacity(4096), body_at: 0 })
    }

    /// Connects anew after a failure.
    pub(crate) async fn reopen(&mut self) -> io::Result<()> {
        self.stream = connect(self.address).await?;
        Ok(())
    }

    /// Sends a request without a body and gives the status.
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<u16> {
        self.begin("GET", path, headers);
        self.request.push_str("\r\n");
        self.exchange().await
    }

    /// Sends a request with a JSON body (an empty one is none) and gives the status.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<u16> {
        self.begin(method, path, headers);
        if !body.is_empty() {
            self.request.push_str("content-type: application/json\r\n");
        }
        // Writing to a String can't fail.
        let _ = write!(self.request, "content-length: {}\r\n\r\n{body}", body.len());
        self.exchange().await
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.input[self.body_at..]
    }

    /// A text field at the top of the last answer's JSON. Usher's answers don't escape the values that are asked for here.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(self.body()).ok()?;
        let (_, rest) = text.split_once(&format!("\"{name}\":\""))?;
        rest.split_once('"').map(|(value, _)| value)
    }

    fn begin(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        self.request.clear();
        for part in [method, " ", path, " HTTP/1.1\r\nhost: usher\r\n"] {
            self.request.push_str(part);
        }
        for (name, value) in headers {
            for part in [name, ": ", value, "\r\n"] {
                self.request.push_str(part);
            }
        }
    }

    async fn exchange(&mut self) -> io::Result<u16> {
        self.stream.write_all(self.request.as_bytes()).await?;
        self.input.clear();
        self.body_at = 0;
        let mut whole = None;
        loop {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if whole.is_none() {
                whole = head(&self.input)?;
            }
            match whole {
                Some(head) if self.input.len() >= head.body_at + head.length => {
                    self.body_at = head.body_at;
                    return Ok(head.status);
                }
                _ if self.input.len() > LONGEST => return Err(bad("an answer that is too long")),
                _ => {}
            }
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    body_at: usize,
    length: usize,
}

/// The head of an answer, once all of it is there.
fn head(input: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&input[..end]).map_err(|_| bad("a head that is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| bad("an answer that is not HTTP/1.1"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())
    });
    let length = match length {
        Some(Some(length)) => length,
        None if status == 204 || status == 304 => 0,
        _ => return Err(bad("an answer without a length")),
    };
    Ok(Some(Head { status, body_at: end + 4, length }))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
        assert_eq!(head(&answer[..40]).unwrap(), None);
        assert_eq!(head(answer).unwrap(), Some(Head { status: 201, body_at: answer.len() - 5, length: 5 }));
        assert_eq!(head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().map(|head| head.length), Some(0));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for answer in [
            &b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        ] {
            assert!(head(answer).is_err());
        }
    }
}
