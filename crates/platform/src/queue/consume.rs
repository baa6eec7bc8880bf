//! Consumes one destination's queue on a channel of its own, with its own prefetch.

use std::sync::Arc;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::{QueueConnection, QueueError, declare, within_deadline};

/// A message to be acknowledged once, after its result was committed.
#[derive(Debug)]
pub struct QueueMessage {
    pub body: Vec<u8>,
    pub ack: Ack,
}

/// The right to acknowledge a message or to give it back. Dropped unused, the message returns to the queue when the
/// channel closes.
#[derive(Debug)]
pub struct Ack {
    channel: Arc<Channel>,
    delivery_tag: u64,
}

/// Acknowledges the messages. An error means that a channel is gone and that RabbitMQ delivers its messages again.
///
/// All acknowledgements are handed to the connections before any is awaited, so that they are written together. Each
/// is for one message: with "all up to this one", fast deliveries would wait for slow ones.
pub async fn acknowledge(acks: impl IntoIterator<Item = Ack>) -> Result<(), QueueError> {
    let acknowledged =
        join_all(acks.into_iter().map(|ack| async move {
            ack.channel.basic_ack(ack.delivery_tag, BasicAckOptions::default()).await
        }));
    within_deadline(async { acknowledged.await.into_iter().collect() }).await
}

/// Returns the messages to their queues, for another worker.
pub async fn give_back(acks: impl IntoIterator<Item = Ack>) -> Result<(), QueueError> {
    let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    let given_back = join_all(
        acks.into_iter().map(|ack| async move { ack.channel.basic_nack(ack.delivery_tag, options).await }),
    );
    within_deadline(async { given_back.await.into_iter().collect() }).await
}

/// A running consumer.
pub struct QueueConsumer {
    channel: Arc<Channel>,
    consumer: Consumer,
    /// A consumer reports its end once; another poll would wait indefinitely.
    ended: bool,
}

impl QueueConsumer {
    /// Declares the queue if it is missing and consumes it. At most `prefetch` messages are unacknowledged.
    pub async fn start(connection: &QueueConnection, queue: &str, prefetch: u16) -> Result<Self, QueueError> {
        let channel = Arc::new(connection.channel().await?);
        declare(&channel, queue).await?;
        within_deadline(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer =
            within_deadline(channel.basic_consume(queue.into(), "".into(), options, arguments)).await?;
        Ok(Self { channel, consumer, ended: false })
    }

    /// Waits for the next message; `None` when the consumer has ended and a new one is needed.
    pub async fn next(&mut self) -> Option<QueueMessage> {
        if self.ended {
            return None;
        }
        let item = self.consumer.next().await;
        self.take(item)
    }

    /// Returns a message that has already arrived, if there is one.
    pub fn next_ready(&mut self) -> Option<QueueMessage> {
        if self.ended {
            return None;
        }
        let item = self.consumer.next().now_or_never()?;
        self.take(item)
    }

    fn take(&mut self, item: Option<lapin::Result<Delivery>>) -> Option<QueueMessage> {
        match item {
            Some(Ok(delivery)) => {
                let ack = Ack { channel: Arc::clone(&self.channel), delivery_tag: delivery.delivery_tag };
                return Some(QueueMessage { body: delivery.data, ack });
            }
            Some(Err(error)) => tracing::debug!(%error, "consumer ended"),
            None => {}
        }
        self.ended = true;
        None
    }

    /// Stops consuming: RabbitMQ sends nothing more, and what was received can still be acknowledged.
    pub async fn cancel(&self) -> Result<(), QueueError> {
        let options = lapin::options::BasicCancelOptions::default();
        within_deadline(self.channel.basic_cancel(self.consumer.tag(), options)).await
    }

    /// Closes the channel; messages that are not acknowledged return to the queue.
    pub async fn close(self) -> Result<(), QueueError> {
        within_deadline(self.channel.close(200, "stopping".into())).await
    }
}
