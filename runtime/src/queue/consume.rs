//! One consumer of one destination's queue, with its own channel and prefetch.

use futures::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};

use super::{Link, QueueError, declare, within_deadline};

/// A message that is to be acknowledged once, after what it led to was committed.
#[derive(Debug)]
pub struct Message {
    pub body: Vec<u8>,
    pub ack: Ack,
}

/// The right to acknowledge a message or to give it back. Dropped unused, the message returns to the queue when the
/// channel closes.
#[derive(Debug)]
pub struct Ack(Acker);

impl Ack {
    /// The message is done with. An error means that the channel is gone and RabbitMQ delivers it again.
    pub async fn ack(self) -> Result<(), QueueError> {
        within_deadline(self.0.ack(BasicAckOptions::default())).await.map(drop)
    }

    /// The message goes back to the queue, for another worker.
    pub async fn give_back(self) -> Result<(), QueueError> {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        within_deadline(self.0.nack(options)).await.map(drop)
    }
}

/// A running consumer.
pub struct Subscription {
    channel: Channel,
    consumer: Consumer,
    /// The end of a consumer is told once, to whoever asks next; asking again would wait for ever.
    ended: bool,
}

impl Subscription {
    /// Declares the queue when it is missing and consumes it. At most `prefetch` messages are unacknowledged.
    pub async fn start(link: &Link, queue: &str, prefetch: u16) -> Result<Self, QueueError> {
        let channel = link.channel().await?;
        declare(&channel, queue).await?;
        within_deadline(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer =
            within_deadline(channel.basic_consume(queue.into(), "".into(), options, arguments)).await?;
        Ok(Self { channel, consumer, ended: false })
    }

    /// The next message; `None` when the consumer has ended and a new subscription is needed.
    pub async fn next(&mut self) -> Option<Message> {
        if self.ended {
            return None;
        }
        let item = self.consumer.next().await;
        self.received(item)
    }

    /// A message that is there already.
    pub fn next_ready(&mut self) -> Option<Message> {
        if self.ended {
            return None;
        }
        let item = self.consumer.next().now_or_never()?;
        self.received(item)
    }

    fn received(&mut self, item: Option<lapin::Result<lapin::message::Delivery>>) -> Option<Message> {
        match item {
            Some(Ok(delivery)) => return Some(Message { body: delivery.data, ack: Ack(delivery.acker) }),
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

    /// Closes the channel; what is not acknowledged returns to the queue.
    pub async fn close(self) -> Result<(), QueueError> {
        within_deadline(self.channel.close(200, "stopping".into())).await
    }
}
