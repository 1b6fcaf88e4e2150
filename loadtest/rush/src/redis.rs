//! A few words of Redis' protocol, for statistics and for calling scripts without the service. It blocks: nothing else runs meanwhile.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

/// A connection that counts the commands it sends, so that they can be taken off the statistics.
pub(crate) struct Redis {
    stream: BufReader<TcpStream>,
    sent: u64,
}

/// An answer. Integers and strings of any kind are bytes; a nil is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A string or a number.
    Bytes(Vec<u8>),
    /// Nothing.
    Nil,
    /// A list.
    List(Vec<Answer>),
}

/// What Redis counts of one command.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct CommandStat {
    /// How often it was called.
    pub(crate) calls: u64,
    /// Microseconds spent in it.
    pub(crate) usec: u64,
}

impl Redis {
    /// Connects to the server on this port of 127.0.0.1.
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(1 << 20, stream), sent: 0 })
    }

    /// Sends one command and waits for its answer.
    pub(crate) fn command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> io::Result<Answer> {
        self.sent += 1;
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes)?;
        answer(&mut self.stream)
    }

    /// Sends one command whose answer is a string or a number.
    pub(crate) fn text<A: AsRef<[u8]>>(&mut self, words: &[A]) -> io::Result<String> {
        match self.command(words)? {
            Answer::Bytes(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            other => Err(broken(&format!("wanted a string, got {other:?}"))),
        }
    }

    /// A section of `INFO`.
    pub(crate) fn info(&mut self, section: &str) -> io::Result<String> {
        self.text(&["INFO", section])
    }

    /// Commands that this connection has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }
}

fn answer(from: &mut impl BufRead) -> io::Result<Answer> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| broken("an empty answer"))?;
    match kind {
        "+" | ":" => Ok(Answer::Bytes(rest.as_bytes().to_vec())),
        "-" => Err(broken(rest)),
        "$" | "*" if rest == "-1" => Ok(Answer::Nil),
        "$" => {
            let mut bytes = vec![0; length(rest)? + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Ok(Answer::Bytes(bytes))
        }
        "*" => Ok(Answer::List((0..length(rest)?).map(|_| answer(from)).collect::<Result<_, _>>()?)),
        _ => Err(broken(line)),
    }
}

fn length(text: &str) -> io::Result<usize> {
    text.parse().ok().filter(|length| *length <= 64 << 20).ok_or_else(|| broken("a length"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("Redis: {what}"))
}

/// A number of `INFO`.
pub(crate) fn info_number(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

/// A command's line of `INFO commandstats`; zeros for one that was never called.
pub(crate) fn command_stat(info: &str, command: &str) -> CommandStat {
    let field = |line: &str, name: &str| {
        line.split(',').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    info.lines()
        .find_map(|line| line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(':'))
        .and_then(|line| Some(CommandStat { calls: field(line, "calls")?, usec: field(line, "usec")? }))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let mut bytes = &b"*3\r\n$5\r\nhello\r\n:42\r\n$-1\r\n+OK\r\n-ERR no\r\n"[..];
        let list = vec![Answer::Bytes(b"hello".to_vec()), Answer::Bytes(b"42".to_vec()), Answer::Nil];
        assert_eq!(answer(&mut bytes).unwrap(), Answer::List(list));
        assert_eq!(answer(&mut bytes).unwrap(), Answer::Bytes(b"OK".to_vec()));
        assert!(answer(&mut bytes).unwrap_err().to_string().contains("ERR no"));
        assert!(answer(&mut bytes).is_err(), "the end");
    }

    #[test]
    fn statistics_are_found_by_their_whole_name() {
        let info = "# Commandstats\r\ncmdstat_get:calls=9,usec=8,usec_per_call=0.89\r\n\
                    cmdstat_evalsha:calls=3,usec=45,usec_per_call=15.00,rejected_calls=0\r\ntotal_commands_processed:77\r\n";
        assert_eq!(command_stat(info, "evalsha"), CommandStat { calls: 3, usec: 45 });
        assert_eq!(command_stat(info, "eval"), CommandStat::default());
        assert_eq!(info_number(info, "total_commands_processed"), Some(77));
        assert_eq!(info_number(info, "total"), None);
    }
}
