//! A reader of server-sent events, for the part of the format that Usher writes.

use reqwest::Response;
use serde_json::Value;

use super::EVENT_TIMEOUT;

/// An item of the stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StreamItem {
    /// An event, and whether it has a `retry` field.
    Event { name: String, data: Value, retry: Option<u64> },
    /// A comment line.
    Heartbeat,
    /// The body ended properly.
    End,
}

pub(crate) struct EventStream {
    response: Response,
    text: String,
}

impl EventStream {
    /// Opens a stream. The response must be an event stream.
    pub(crate) async fn open(url: &str, headers: &[(&str, &str)]) -> Self {
        // No timeout: a stream has no fixed length.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self::open_with(&client, url, headers).await
    }

    /// As [`Self::open`], with a shared client.
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

    /// The next item. A broken or silent stream fails the test.
    pub(crate) async fn next(&mut self) -> StreamItem {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let said = read(block);
                self.text = rest.to_owned();
                return said;
            }
            let chunk = tokio::time::timeout(EVENT_TIMEOUT, self.response.chunk());
            match chunk.await.expect("the stream sends an item").expect("the stream ends properly")
            {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes).unwrap()),
                None => {
                    assert_eq!(self.text, "", "the stream ended within an event");
                    return StreamItem::End;
                }
            }
        }
    }

    pub(crate) async fn ticket(&mut self) -> Value {
        match self.next().await {
            StreamItem::Event { name, data, .. } => {
                assert_eq!(name, "ticket");
                data
            }
            StreamItem::Heartbeat => Box::pin(self.ticket()).await,
            StreamItem::End => panic!("the stream has ended"),
        }
    }

    /// The first ticket that satisfies the condition. Earlier ones are skipped.
    pub(crate) async fn until(&mut self, satisfies: impl Fn(&Value) -> bool) -> Value {
        loop {
            let ticket = self.ticket().await;
            if satisfies(&ticket) {
                return ticket;
            }
        }
    }
}

fn read(block: &str) -> StreamItem {
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
        return StreamItem::Heartbeat;
    }
    StreamItem::Event { name, data: serde_json::from_str(&data).unwrap(), retry }
}
