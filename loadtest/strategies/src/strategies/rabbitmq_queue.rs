//! A queue in RabbitMQ with one consumer, which applies all queued requests in one transaction,
//! replies and acknowledges.
//!
//! The reply goes to the connection that asked (direct reply-to). Messages are not persistent: a
//! client that gets no reply would ask again.

use std::sync::Arc;

use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConsumerMessage, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{BasicProperties, DELIVERY_MODE_TRANSIENT};
use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedReceiver;

use super::pending_replies::{MAX_CONSUMER_BATCH, PendingReplies, await_reply};
use crate::BoxError;
use crate::naive_service::NaiveService;
use crate::work_item::{LockStrategy, WorkFailure, WorkItem, WorkResult};

const QUEUE: &str = "requests";
/// RabbitMQ's pseudo-queue for direct reply-to.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

pub(crate) struct RabbitMqQueue {
    pending: Arc<PendingReplies>,
    channel: Channel,
    _connection: Connection,
}

impl RabbitMqQueue {
    /// An instance. The one that is given the service also consumes.
    pub(crate) async fn new(port: u16, consumer: Option<NaiveService>) -> Result<Self, BoxError> {
        let arguments = OpenConnectionArguments::new("127.0.0.1", port, "guest", "guest");
        let connection = Connection::open(&arguments).await?;
        let channel = connection.open_channel(None).await?;
        channel.queue_declare(QueueDeclareArguments::new(QUEUE)).await?;
        let replies = BasicConsumeArguments::new(REPLY_TO, "").auto_ack(true).finish();
        let (_, replies) = channel.basic_consume_rx(replies).await?;
        let pending = Arc::<PendingReplies>::default();
        tokio::spawn(receive_replies(replies, pending.clone()));
        if let Some(service) = consumer {
            let channel = connection.open_channel(None).await?;
            let prefetch = u16::try_from(MAX_CONSUMER_BATCH)?;
            channel.basic_qos(BasicQosArguments::new(0, prefetch, false)).await?;
            let (_, requests) =
                channel.basic_consume_rx(BasicConsumeArguments::new(QUEUE, "")).await?;
            tokio::spawn(async move {
                if let Err(error) = consume(channel, requests, service).await {
                    eprintln!("strategies: the RabbitMQ consumer failed: {error}");
                }
            });
        }
        Ok(Self { pending, channel, _connection: connection })
    }
}

impl LockStrategy for RabbitMqQueue {
    fn execute<'a>(&'a self, item: &'a WorkItem) -> BoxFuture<'a, WorkResult> {
        Box::pin(async move {
            let (id, reply) = self.pending.register();
            let properties = BasicProperties::default()
                .with_delivery_mode(DELIVERY_MODE_TRANSIENT)
                .with_correlation_id(&id.to_string())
                .with_reply_to(REPLY_TO)
                .finish();
            let body = serde_json::to_vec(item).map_err(|_| WorkFailure::Broken)?;
            let target = BasicPublishArguments::new("", QUEUE);
            let sent = self.channel.basic_publish(properties, body, target).await;
            sent.map_err(|_| WorkFailure::Broken)?;
            await_reply(reply).await
        })
    }
}

async fn receive_replies(
    mut replies: UnboundedReceiver<ConsumerMessage>,
    pending: Arc<PendingReplies>,
) {
    while let Some(reply) = replies.recv().await {
        let properties = reply.basic_properties.as_ref();
        let id = properties.and_then(|it| it.correlation_id()?.parse().ok());
        let result = serde_json::from_slice(&reply.content.unwrap_or_default());
        pending.complete(id.unwrap_or(u64::MAX), result.unwrap_or(Err(WorkFailure::Broken)));
    }
}

async fn consume(
    channel: Channel,
    mut requests: UnboundedReceiver<ConsumerMessage>,
    service: NaiveService,
) -> Result<(), BoxError> {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, MAX_CONSUMER_BATCH).await > 0 {
        let items: Vec<WorkItem> = batch
            .iter()
            .map(|it| serde_json::from_slice(it.content.as_deref().unwrap_or_default()))
            .collect::<Result<_, _>>()?;
        let answers = service.apply_batch(&items).await;
        let mut last = 0;
        for (index, request) in batch.drain(..).enumerate() {
            let result: WorkResult =
                answers.as_ref().map(|answers| answers[index]).map_err(|failure| *failure);
            let asked = request.basic_properties.unwrap_or_default();
            let (Some(id), Some(to)) = (asked.correlation_id(), asked.reply_to()) else { continue };
            let properties = BasicProperties::default().with_correlation_id(id).finish();
            let body = serde_json::to_vec(&result)?;
            channel.basic_publish(properties, body, BasicPublishArguments::new("", to)).await?;
            last = request.deliver.map_or(last, |it| it.delivery_tag());
        }
        channel.basic_ack(BasicAckArguments::new(last, true)).await?;
    }
    Ok(())
}
