//! A Kafka topic with one partition and one consumer, which applies each fetched batch in one
//! transaction. Replies go to a topic with one partition per instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::pending_replies::{MAX_CONSUMER_BATCH, PendingReplies, await_reply};
use crate::BoxError;
use crate::naive_service::NaiveService;
use crate::work_item::{LockStrategy, WorkFailure, WorkItem, WorkResult};

const REQUESTS: &str = "requests";
const REPLIES: &str = "replies";
const INSTANCE_COUNT: i32 = 2;
/// Bytes per fetch.
const FETCH_SIZE: std::ops::Range<i32> = 1..1 << 20;
/// A fetch that finds nothing is answered only after this time, so a long wait costs latency.
const FETCH_WAIT_MS: i32 = 10;

#[derive(Serialize, Deserialize)]
struct KafkaRequest {
    instance: i32,
    id: u64,
    item: WorkItem,
}

#[derive(Serialize, Deserialize)]
struct KafkaReply {
    id: u64,
    result: WorkResult,
}

pub(crate) struct KafkaPartition {
    instance: i32,
    pending: Arc<PendingReplies>,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
}

impl KafkaPartition {
    pub(crate) async fn create_topics(port: u16) -> Result<(), BoxError> {
        let client = ClientBuilder::new(vec![format!("127.0.0.1:{port}")]).build().await?;
        let controller = client.controller_client()?;
        controller.create_topic(REQUESTS, 1, 1, 5_000).await?;
        Ok(controller.create_topic(REPLIES, INSTANCE_COUNT, 1, 5_000).await?)
    }

    /// An instance. The one that is given the service also consumes.
    pub(crate) async fn new(
        port: u16,
        instance: i32,
        consumer: Option<NaiveService>,
    ) -> Result<Self, BoxError> {
        let requests = open_partition(port, REQUESTS, 0).await?;
        let replies = open_partition(port, REPLIES, instance).await?;
        let (outgoing, messages) = mpsc::unbounded_channel();
        let pending = Arc::<PendingReplies>::default();
        spawn("producer", produce(requests, messages));
        spawn("reply listener", receive_replies(replies, pending.clone()));
        if let Some(service) = consumer {
            // A separate connection: a waiting fetch blocks its connection.
            let requests = open_partition(port, REQUESTS, 0).await?;
            let mut replies = Vec::new();
            for instance in 0..INSTANCE_COUNT {
                replies.push(open_partition(port, REPLIES, instance).await?);
            }
            spawn("consumer", consume(requests, replies, service));
        }
        Ok(Self { instance, pending, outgoing })
    }
}

impl LockStrategy for KafkaPartition {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let (id, reply) = self.pending.register();
            let request = KafkaRequest { instance: self.instance, id, item: *item };
            let message = serde_json::to_vec(&request).map_err(|_| WorkFailure::Broken)?;
            self.outgoing.send(message).map_err(|_| WorkFailure::Broken)?;
            await_reply(reply).await
        })
    }
}

async fn open_partition(port: u16, topic: &str, number: i32) -> Result<PartitionClient, BoxError> {
    let client = ClientBuilder::new(vec![format!("127.0.0.1:{port}")]).build().await?;
    Ok(client.partition_client(topic, number, UnknownTopicHandling::Retry).await?)
}

fn spawn(name: &'static str, task: impl Future<Output = Result<(), BoxError>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = task.await {
            eprintln!("strategies: the Kafka {name} failed: {error}");
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

/// Sends the messages that arrived while the last batch was in flight.
async fn produce(
    partition: PartitionClient,
    mut messages: mpsc::UnboundedReceiver<Vec<u8>>,
) -> Result<(), BoxError> {
    let mut batch = Vec::new();
    while messages.recv_many(&mut batch, MAX_CONSUMER_BATCH).await > 0 {
        let records = batch.drain(..).map(record).collect();
        partition.produce(records, Compression::NoCompression).await?;
    }
    Ok(())
}

async fn receive_replies(
    partition: PartitionClient,
    pending: Arc<PendingReplies>,
) -> Result<(), BoxError> {
    let mut offset = 0;
    loop {
        for record in partition.fetch_records(offset, FETCH_SIZE, FETCH_WAIT_MS).await?.0 {
            offset = record.offset + 1;
            let reply: KafkaReply =
                serde_json::from_slice(&record.record.value.unwrap_or_default())?;
            pending.complete(reply.id, reply.result);
        }
    }
}

async fn consume(
    partition: PartitionClient,
    reply_partitions: Vec<PartitionClient>,
    service: NaiveService,
) -> Result<(), BoxError> {
    let mut offset = 0;
    loop {
        let mut requests: Vec<KafkaRequest> = Vec::new();
        let fetched = partition.fetch_records(offset, FETCH_SIZE, FETCH_WAIT_MS).await?.0;
        for record in fetched.into_iter().take(MAX_CONSUMER_BATCH) {
            offset = record.offset + 1;
            requests.push(serde_json::from_slice(&record.record.value.unwrap_or_default())?);
        }
        let items: Vec<_> = requests.iter().map(|request| request.item).collect();
        if items.is_empty() {
            continue;
        }
        let answers = service.apply_batch(&items).await;
        let mut replies = vec![Vec::new(); reply_partitions.len()];
        for (index, request) in requests.into_iter().enumerate() {
            let result = answers.as_ref().map(|answers| answers[index]).map_err(|failure| *failure);
            let reply = serde_json::to_vec(&KafkaReply { id: request.id, result })?;
            replies[usize::try_from(request.instance)?].push(record(reply));
        }
        for (partition, replies) in reply_partitions.iter().zip(replies) {
            partition.produce(replies, Compression::NoCompression).await?;
        }
    }
}
