//! Server-sent events that many clients receive. Each is encoded and compressed once.
//!
//! A gzip stream (RFC 1952) has a header, DEFLATE blocks and a checksum of the text. Each event is
//! compressed separately and ends at a byte boundary, so the blocks of any events form a valid
//! stream in any order. Only the checksum belongs to one client, and it is computed from those of
//! the events.

use std::io::Write;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use serde::Serialize;

use super::accept_encoding::coding_weight;

const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A final block without content.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// An event in both encodings.
#[derive(Debug)]
pub struct SharedEvent {
    text: Bytes,
    blocks: Bytes,
    checksum: Crc,
}

impl SharedEvent {
    pub fn new(name: &str, data: &impl Serialize) -> Self {
        let data = serde_json::to_string(data).unwrap_or_else(|error| {
            tracing::error!(%error, "an event can't be serialized as JSON");
            "null".to_owned()
        });
        Self::of_text(format!("event: {name}\ndata: {data}\n\n"))
    }

    /// `text` must be whole lines of the format of server-sent events.
    fn of_text(text: String) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        let written = encoder.write_all(text.as_bytes()).and_then(|()| encoder.flush());
        if let Err(error) = written {
            tracing::error!(%error, "an event can't be compressed");
        }
        let blocks = Bytes::copy_from_slice(encoder.get_ref());
        let mut checksum = Crc::new();
        checksum.update(text.as_bytes());
        Self { text: text.into(), blocks, checksum }
    }
}

/// Writes the body of one client's stream.
#[derive(Debug)]
pub enum EventEncoder {
    Plain,
    /// The checksum of what was written.
    Gzip(Crc),
}

impl EventEncoder {
    /// Uses gzip if the client accepts it.
    pub fn for_client(headers: &HeaderMap) -> Self {
        if accepts_gzip(headers) { Self::Gzip(Crc::new()) } else { Self::Plain }
    }

    /// The value of `Content-Encoding`.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip(_) => Some("gzip"),
        }
    }

    /// What a stream begins with: the reconnection time in milliseconds. It belongs to the event
    /// that follows.
    pub fn start(&mut self, retry_ms: u64) -> Vec<u8> {
        let mut body = Vec::new();
        if let Self::Gzip(_) = self {
            body.extend_from_slice(&GZIP_HEADER);
        }
        self.write_text(&format!("retry: {retry_ms}\n"), &mut body);
        body
    }

    pub fn write(&mut self, event: &SharedEvent, body: &mut Vec<u8>) {
        match self {
            Self::Plain => body.extend_from_slice(&event.text),
            Self::Gzip(checksum) => {
                checksum.combine(&event.checksum);
                body.extend_from_slice(&event.blocks);
            }
        }
    }

    /// An empty comment, which keeps proxies from closing the connection.
    pub fn heartbeat(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.write_text(":\n\n", &mut body);
        body
    }

    /// What a stream ends with.
    pub fn end(self) -> Vec<u8> {
        match self {
            Self::Plain => Vec::new(),
            Self::Gzip(checksum) => {
                let mut body = LAST_BLOCK.to_vec();
                body.extend_from_slice(&checksum.sum().to_le_bytes());
                body.extend_from_slice(&checksum.amount().to_le_bytes());
                body
            }
        }
    }

    /// A short text, in a stored block (RFC 1951, 3.2.4).
    fn write_text(&mut self, text: &str, body: &mut Vec<u8>) {
        if let Self::Gzip(checksum) = self {
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            body.push(0);
            body.extend_from_slice(&length.to_le_bytes());
            body.extend_from_slice(&(!length).to_le_bytes());
            checksum.update(text.as_bytes());
        }
        body.extend_from_slice(text.as_bytes());
    }
}

/// Whether `Accept-Encoding` (RFC 9110, 12.5.3) allows gzip.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    let codings: Vec<&str> = lists.flat_map(|list| list.split(',')).collect();
    let weight = |wanted| coding_weight(codings.iter().copied(), wanted);
    weight("gzip").or_else(|| weight("*")).is_some_and(|quality| quality > 0.0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::json;

    use super::*;

    fn written(mut encoder: EventEncoder, events: &[&SharedEvent]) -> Vec<u8> {
        let mut body = encoder.start(2_500);
        for event in events {
            encoder.write(event, &mut body);
            body.extend(encoder.heartbeat());
        }
        body.extend(encoder.end());
        body
    }

    #[test]
    fn compressed_stream_has_the_text_of_the_plain_one() {
        let long = SharedEvent::new("status", &json!({"statuses": "ahs".repeat(30_000)}));
        let short = SharedEvent::new("seats", &json!({"items": []}));
        let events = [&long, &short, &long, &short, &short];
        let plain = written(EventEncoder::Plain, &events);
        let compressed = written(EventEncoder::Gzip(Crc::new()), &events);
        assert!(compressed.len() < plain.len() / 50, "{}", compressed.len());
        let mut text = Vec::new();
        // Checks the checksum and the length at the end.
        flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut text).unwrap();
        assert!(text == plain);
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("retry: 2500\nevent: status\ndata: {\"statuses\":\"ahs"),
            "{text}"
        );
    }

    #[test]
    fn client_can_read_each_event_before_the_next_one() {
        let event = SharedEvent::new("seats", &json!({"items": [1, 2, 3]}));
        let mut encoder = EventEncoder::Gzip(Crc::new());
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        decoder.write_all(&encoder.start(2_000)).unwrap();
        for nth in 1..=3 {
            let mut body = Vec::new();
            encoder.write(&event, &mut body);
            decoder.write_all(&body).unwrap();
            decoder.flush().unwrap();
            let events = std::str::from_utf8(decoder.get_ref()).unwrap().matches("\n\n").count();
            assert_eq!(events, nth);
        }
    }

    #[test]
    fn gzip_is_used_if_the_client_accepts_it() {
        for (accepted, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("deflate, br", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=x", false),
            ("identity", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, accepted.parse().unwrap())]);
            assert_eq!(accepts_gzip(&headers), expected, "{accepted}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
