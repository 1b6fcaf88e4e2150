//! A minimal blocking Redis client, for statistics and for how far the writer is.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

/// Counts the commands it sends, so that they can be subtracted from the server's statistics.
pub(crate) struct RedisConnection {
    stream: BufReader<TcpStream>,
    sent: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RedisReply {
    /// A string or an integer.
    Bytes(Vec<u8>),
    Nil,
    List(Vec<RedisReply>),
}

impl RedisConnection {
    /// Connects to 127.0.0.1.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(1 << 20, stream), sent: 0 })
    }

    pub(crate) fn command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> io::Result<RedisReply> {
        self.sent += 1;
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes)?;
        read_reply(&mut self.stream)
    }

    /// Sends a command whose reply is a string or an integer.
    pub(crate) fn text_command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> io::Result<String> {
        match self.command(words)? {
            RedisReply::Bytes(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            other => Err(invalid(&format!("expected a string, got {other:?}"))),
        }
    }

    /// The number in a key; 0 without the key.
    pub(crate) fn number(&mut self, key: &str) -> io::Result<u64> {
        match self.command(&["GET", key])? {
            RedisReply::Nil => Ok(0),
            RedisReply::Bytes(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                text.parse().map_err(|_| invalid(&format!("{key} is {text}")))
            }
            other => Err(invalid(&format!("expected a number, got {other:?}"))),
        }
    }

    pub(crate) fn info(&mut self, section: &str) -> io::Result<String> {
        self.text_command(&["INFO", section])
    }

    pub(crate) fn commands_sent(&self) -> u64 {
        self.sent
    }
}

fn read_reply(from: &mut impl BufRead) -> io::Result<RedisReply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| invalid("empty reply"))?;
    match kind {
        "+" | ":" => Ok(RedisReply::Bytes(rest.as_bytes().to_vec())),
        "-" => Err(invalid(rest)),
        "$" | "*" if rest == "-1" => Ok(RedisReply::Nil),
        "$" => {
            let mut bytes = vec![0; length(rest)? + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Ok(RedisReply::Bytes(bytes))
        }
        "*" => Ok(RedisReply::List(
            (0..length(rest)?).map(|_| read_reply(from)).collect::<Result<_, _>>()?,
        )),
        _ => Err(invalid(line)),
    }
}

fn length(text: &str) -> io::Result<usize> {
    text.parse().ok().filter(|length| *length <= 64 << 20).ok_or_else(|| invalid("invalid length"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("Redis: {what}"))
}

/// A numeric field of `INFO`.
pub(crate) fn info_number(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

/// How often a command was called, by `INFO commandstats`; 0 if never.
pub(crate) fn command_calls(info: &str, command: &str) -> u64 {
    info.lines()
        .find_map(|line| {
            line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(":calls=")
        })
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_parsed() {
        let mut bytes = &b"*3\r\n$5\r\nhello\r\n:42\r\n$-1\r\n+OK\r\n-ERR no\r\n"[..];
        let list = vec![
            RedisReply::Bytes(b"hello".to_vec()),
            RedisReply::Bytes(b"42".to_vec()),
            RedisReply::Nil,
        ];
        assert_eq!(read_reply(&mut bytes).unwrap(), RedisReply::List(list));
        assert_eq!(read_reply(&mut bytes).unwrap(), RedisReply::Bytes(b"OK".to_vec()));
        assert!(read_reply(&mut bytes).unwrap_err().to_string().contains("ERR no"));
        assert!(read_reply(&mut bytes).is_err(), "the end");
    }

    #[test]
    fn statistics_are_found_by_their_full_name() {
        let info = "# Commandstats\r\ncmdstat_get:calls=9,usec=8,usec_per_call=0.89\r\n\
                    cmdstat_evalsha:calls=3,usec=45\r\ntotal_commands_processed:77\r\n";
        assert_eq!(command_calls(info, "evalsha"), 3);
        assert_eq!(command_calls(info, "eval"), 0);
        assert_eq!(info_number(info, "total_commands_processed"), Some(77));
        assert_eq!(info_number(info, "total"), None);
    }
}
