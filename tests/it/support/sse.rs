//! A reader of server-sent events (the part of the format that Usher writes).

use reqwest::Response;
use serde_json::Value;

use super::PATIENCE;

/// What a stream said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// An event, and whether it told how long to wait before coming back.
    Event { name: String, data: Value, retry: Option<u64> },
    /// A comment line.
    Heartbeat,
    /// The body came to its proper end.
    End,
}

/// One open stream.
pub(crate) struct Sse {
    response: Response,
    text: String,
}

impl Sse {
    /// Opens a stream, which must be one.
    pub(crate) async fn open(url: &str, headers: &[(&str, &str)]) -> Self {
        // No timeout: a stream is as long as it is.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self::open_with(&client, url, headers).await
    }

    /// The same by a client that others share.
    pub(crate) async fn open_with(
        client: &reqwest::Client,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let mut request = client.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{url}");
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!(
            (header("content-type"), header("cache-control")),
            ("text/event-stream", "no-store")
        );
        assert_eq!(header("x-accel-buffering"), "no");
        Self { response, text: String::new() }
    }

    /// What comes next; a stream that breaks off or stays silent for too long fails the test.
    pub(crate) async fn next(&mut self) -> Said {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let said = read(block);
                self.text = rest.to_owned();
                return said;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk());
            match chunk.await.expect("the stream says something").expect("the stream ends properly")
            {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes).unwrap()),
                None => {
                    assert_eq!(self.text, "", "an end within an event");
                    return Said::End;
                }
            }
        }
    }

    /// The next ticket.
    pub(crate) async fn ticket(&mut self) -> Value {
        match self.next().await {
            Said::Event { name, data, .. } => {
                assert_eq!(name, "ticket");
                data
            }
            Said::Heartbeat => Box::pin(self.ticket()).await,
            Said::End => panic!("the stream has ended"),
        }
    }

    /// The first ticket that satisfies; those before it are skipped.
    pub(crate) async fn until(&mut self, satisfies: impl Fn(&Value) -> bool) -> Value {
        loop {
            let ticket = self.ticket().await;
            if satisfies(&ticket) {
                return ticket;
            }
        }
    }
}

fn read(block: &str) -> Said {
    let (mut name, mut data, mut retry) = (String::new(), String::new(), None);
    for line in block.lines() {
        match line.split_once(':') {
            Some(("event", value)) => name = value.trim_start().to_owned(),
            Some(("data", value)) => data.push_str(value.trim_start()),
            Some(("retry", value)) => retry = Some(value.trim().parse().unwrap()),
            Some(("", _)) => {}
            other => panic!("{other:?} in {block:?}"),
        }
    }
    if name.is_empty() {
        return Said::Heartbeat;
    }
    Said::Event { name, data: serde_json::from_str(&data).unwrap(), retry }
}
