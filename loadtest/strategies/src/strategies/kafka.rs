//! A partition of a Kafka topic with one consumer. It takes what it polls, does it one after the other in one transaction, and answers on a topic
//! with one partition for each instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::mail::{BATCH, Desk, answered};
use crate::Failure;
use crate::shop::Shop;
use crate::work::{Answer, Failed, Outcome, Strategy, Work};

const REQUESTS: &str = "requests";
const REPLIES: &str = "replies";
/// Instances.
const INSTANCES: i32 = 2;
/// Bytes that a poll brings at most.
const POLL: std::ops::Range<i32> = 1..1 << 20;
/// How long a poll waits for something, in milliseconds. The broker answers no sooner where nothing was there at first, so a long wait costs latency.
const POLL_MS: i32 = 10;

#[derive(Serialize, Deserialize)]
struct Request {
    instance: i32,
    id: u64,
    work: Work,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    id: u64,
    outcome: Outcome,
}

pub(crate) struct Kafka {
    instance: i32,
    desk: Arc<Desk>,
    outbox: mpsc::UnboundedSender<Vec<u8>>,
}

impl Kafka {
    /// Makes the topics.
    pub(crate) async fn lay(port: u16) -> Result<(), Failure> {
        let client = ClientBuilder::new(vec![format!("127.0.0.1:{port}")]).build().await?;
        let controller = client.controller_client()?;
        controller.create_topic(REQUESTS, 1, 1, 5_000).await?;
        Ok(controller.create_topic(REPLIES, INSTANCES, 1, 5_000).await?)
    }

    /// An instance; one of them consumes, with the shop that it is given.
    pub(crate) async fn new(port: u16, instance: i32, consumer: Option<Shop>) -> Result<Self, Failure> {
        let requests = partition(port, REQUESTS, 0).await?;
        let replies = partition(port, REPLIES, instance).await?;
        let (outbox, messages) = mpsc::unbounded_channel();
        let desk = Arc::<Desk>::default();
        run("producer", send(requests, messages));
        run("listener", hear(replies, desk.clone()));
        if let Some(shop) = consumer {
            // A connection of its own: a poll that waits keeps its connection busy.
            let requests = partition(port, REQUESTS, 0).await?;
            let mut replies = Vec::new();
            for instance in 0..INSTANCES {
                replies.push(partition(port, REPLIES, instance).await?);
            }
            run("consumer", consume(requests, replies, shop));
        }
        Ok(Self { instance, desk, outbox })
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        let (id, answer) = self.desk.ask();
        let request = Request { instance: self.instance, id, work: *work };
        let message = serde_json::to_vec(&request).map_err(|_| Failed::Broken)?;
        self.outbox.send(message).map_err(|_| Failed::Broken)?;
        answered(answer).await
    }
}

async fn partition(port: u16, topic: &str, number: i32) -> Result<PartitionClient, Failure> {
    let client = ClientBuilder::new(vec![format!("127.0.0.1:{port}")]).build().await?;
    Ok(client.partition_client(topic, number, UnknownTopicHandling::Retry).await?)
}

fn run(name: &'static str, task: impl Future<Output = Result<(), Failure>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = task.await {
            eprintln!("strategies: Kafka's {name}: {error}");
        }
    });
}

fn record(value: Vec<u8>) -> Record {
    Record {
        key: None,
        value: Some(value),
        headers: BTreeMap::new(),
        timestamp: chrono::DateTime::UNIX_EPOCH,
    }
}

/// Sends what has gathered while the last batch was on its way.
async fn send(to: PartitionClient, mut messages: mpsc::UnboundedReceiver<Vec<u8>>) -> Result<(), Failure> {
    let mut batch = Vec::new();
    while messages.recv_many(&mut batch, BATCH).await > 0 {
        to.produce(batch.drain(..).map(record).collect(), Compression::NoCompression).await?;
    }
    Ok(())
}

async fn hear(from: PartitionClient, desk: Arc<Desk>) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        for record in from.fetch_records(offset, POLL, POLL_MS).await?.0 {
            offset = record.offset + 1;
            let reply: Reply = serde_json::from_slice(&record.record.value.unwrap_or_default())?;
            desk.answer(reply.id, reply.outcome);
        }
    }
}

async fn consume(from: PartitionClient, to: Vec<PartitionClient>, shop: Shop) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        let mut requests: Vec<Request> = Vec::new();
        for record in from.fetch_records(offset, POLL, POLL_MS).await?.0.into_iter().take(BATCH) {
            offset = record.offset + 1;
            requests.push(serde_json::from_slice(&record.record.value.unwrap_or_default())?);
        }
        let works: Vec<_> = requests.iter().map(|it| it.work).collect();
        if works.is_empty() {
            continue;
        }
        let answers: Result<Vec<Answer>, Failed> = shop.batch(&works).await;
        let mut replies = vec![Vec::new(); to.len()];
        for (at, request) in requests.into_iter().enumerate() {
            let outcome = answers.as_ref().map(|answers| answers[at]).map_err(|why| *why);
            let reply = serde_json::to_vec(&Reply { id: request.id, outcome })?;
            replies[usize::try_from(request.instance)?].push(record(reply));
        }
        for (to, replies) in to.iter().zip(replies) {
            to.produce(replies, Compression::NoCompression).await?;
        }
    }
}

impl Strategy for Kafka {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
