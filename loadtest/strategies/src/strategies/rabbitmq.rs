//! A queue in RabbitMQ with one consumer. It takes what stands there, does it one after the other in one transaction, answers and acknowledges.
//! The request waits for its answer (direct reply-to). Messages are not persistent: a request whose answer is awaited is asked again.

use std::sync::Arc;

use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
    ConsumerMessage, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{BasicProperties, DELIVERY_MODE_TRANSIENT};
use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedReceiver;

use super::mail::{BATCH, Desk, answered};
use crate::Failure;
use crate::shop::Shop;
use crate::work::{Answer, Failed, Outcome, Strategy, Work};

const QUEUE: &str = "requests";
/// RabbitMQ's name for «back to the connection that asked».
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

pub(crate) struct RabbitMq {
    desk: Arc<Desk>,
    channel: Channel,
    _connection: Connection,
}

impl RabbitMq {
    /// An instance; one of them consumes, with the shop that it is given.
    pub(crate) async fn new(port: u16, consumer: Option<Shop>) -> Result<Self, Failure> {
        let connection =
            Connection::open(&OpenConnectionArguments::new("127.0.0.1", port, "guest", "guest")).await?;
        let channel = connection.open_channel(None).await?;
        channel.queue_declare(QueueDeclareArguments::new(QUEUE)).await?;
        let replies = BasicConsumeArguments::new(REPLY_TO, "").auto_ack(true).finish();
        let (_, replies) = channel.basic_consume_rx(replies).await?;
        let desk = Arc::<Desk>::default();
        tokio::spawn(hear(replies, desk.clone()));
        if let Some(shop) = consumer {
            let channel = connection.open_channel(None).await?;
            channel.basic_qos(BasicQosArguments::new(0, u16::try_from(BATCH)?, false)).await?;
            let (_, requests) = channel.basic_consume_rx(BasicConsumeArguments::new(QUEUE, "")).await?;
            tokio::spawn(async move {
                if let Err(error) = consume(channel, requests, shop).await {
                    eprintln!("strategies: RabbitMQ's consumer: {error}");
                }
            });
        }
        Ok(Self { desk, channel, _connection: connection })
    }

    async fn do_it(&self, work: &Work) -> Outcome {
        let (id, answer) = self.desk.ask();
        let properties = BasicProperties::default()
            .with_delivery_mode(DELIVERY_MODE_TRANSIENT)
            .with_correlation_id(&id.to_string())
            .with_reply_to(REPLY_TO)
            .finish();
        let body = serde_json::to_vec(work).map_err(|_| Failed::Broken)?;
        let to = BasicPublishArguments::new("", QUEUE);
        self.channel.basic_publish(properties, body, to).await.map_err(|_| Failed::Broken)?;
        answered(answer).await
    }
}

async fn hear(mut replies: UnboundedReceiver<ConsumerMessage>, desk: Arc<Desk>) {
    while let Some(reply) = replies.recv().await {
        let id = reply.basic_properties.as_ref().and_then(|it| it.correlation_id()?.parse().ok());
        let outcome = serde_json::from_slice(&reply.content.unwrap_or_default());
        desk.answer(id.unwrap_or(u64::MAX), outcome.unwrap_or(Err(Failed::Broken)));
    }
}

async fn consume(
    channel: Channel,
    mut requests: UnboundedReceiver<ConsumerMessage>,
    shop: Shop,
) -> Result<(), Failure> {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, BATCH).await > 0 {
        let works: Vec<Work> = batch
            .iter()
            .map(|it| serde_json::from_slice(it.content.as_deref().unwrap_or_default()))
            .collect::<Result<_, _>>()?;
        let answers: Result<Vec<Answer>, Failed> = shop.batch(&works).await;
        let mut last = 0;
        for (at, request) in batch.drain(..).enumerate() {
            let outcome: Outcome = answers.as_ref().map(|answers| answers[at]).map_err(|why| *why);
            let asked = request.basic_properties.unwrap_or_default();
            let (Some(id), Some(to)) = (asked.correlation_id(), asked.reply_to()) else { continue };
            let properties = BasicProperties::default().with_correlation_id(id).finish();
            let body = serde_json::to_vec(&outcome)?;
            channel.basic_publish(properties, body, BasicPublishArguments::new("", to)).await?;
            last = request.deliver.map_or(last, |it| it.delivery_tag());
        }
        channel.basic_ack(BasicAckArguments::new(last, true)).await?;
    }
    Ok(())
}

impl Strategy for RabbitMq {
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Outcome> {
        Box::pin(self.do_it(work))
    }
}
