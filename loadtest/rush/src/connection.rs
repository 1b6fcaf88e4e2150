//! A persistent HTTP/1.1 connection with one request in flight.
//!
//! It does as little work as possible because the generator shares the cores with the service. It
//! understands only what Usher sends: a status line and a `content-length`, no chunked bodies.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// In bytes.
const MAX_RESPONSE_SIZE: usize = 4 << 20;

/// A connection with buffers for its next request and its last response.
pub(crate) struct HttpConnection {
    address: SocketAddr,
    stream: TcpStream,
    request: String,
    input: Vec<u8>,
    body_at: usize,
}

impl HttpConnection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = connect(address).await?;
        Ok(Self {
            address,
            stream,
            request: String::new(),
            input: Vec::with_capacity(4096),
            body_at: 0,
        })
    }

    pub(crate) async fn reconnect(&mut self) -> io::Result<()> {
        self.stream = connect(self.address).await?;
        Ok(())
    }

    /// Sends a request without a body and returns the status.
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<u16> {
        self.begin("GET", path, headers);
        self.request.push_str("\r\n");
        self.exchange().await
    }

    /// Sends a request with a JSON body and returns the status. An empty text is no body.
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

    /// Body of the last response.
    pub(crate) fn body(&self) -> &[u8] {
        &self.input[self.body_at..]
    }

    /// The first text field of this name in the last response. Handles no JSON escapes: tokens and
    /// ids have none.
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
        let mut parsed = None;
        loop {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if parsed.is_none() {
                parsed = parse_head(&self.input)?;
            }
            match parsed {
                Some(head) if self.input.len() >= head.body_at + head.length => {
                    self.body_at = head.body_at;
                    return Ok(head.status);
                }
                _ if self.input.len() > MAX_RESPONSE_SIZE => {
                    return Err(invalid("the response is too long"));
                }
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
struct ResponseHead {
    status: u16,
    body_at: usize,
    length: usize,
}

/// Parses the head of a response; none while it is incomplete.
fn parse_head(input: &[u8]) -> io::Result<Option<ResponseHead>> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&input[..end])
        .map_err(|_| invalid("the response head is not UTF-8"))?;
    let mut lines = text.split("\r\n");
    let status =
        lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid("the response is not HTTP/1.1"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())
    });
    let length = match length {
        Some(Some(length)) => length,
        None if status == 204 || status == 304 => 0,
        _ => return Err(invalid("the response has no content-length")),
    };
    Ok(Some(ResponseHead { status, body_at: end + 4, length }))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_parsed_when_complete() {
        let response = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
        assert_eq!(parse_head(&response[..40]).unwrap(), None);
        assert_eq!(
            parse_head(response).unwrap(),
            Some(ResponseHead { status: 201, body_at: response.len() - 5, length: 5 })
        );
        assert_eq!(
            parse_head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().map(|head| head.length),
            Some(0)
        );
    }

    #[test]
    fn unsupported_responses_are_rejected() {
        for response in [
            &b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        ] {
            assert!(parse_head(response).is_err());
        }
    }
}
