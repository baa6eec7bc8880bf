//! Consumes one destination's queue on a channel of its own, with its own prefetch.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::sync::Mutex;

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
    channel: Arc<ConsumedChannel>,
    delivery_tag: u64,
}

/// Acknowledges the messages. An error means that a channel is gone and that RabbitMQ delivers its messages again.
pub async fn acknowledge(acks: impl IntoIterator<Item = Ack>) -> Result<(), QueueError> {
    settle(acks, Verdict::Done).await
}

/// Returns the messages to their queues, for another worker.
pub async fn give_back(acks: impl IntoIterator<Item = Ack>) -> Result<(), QueueError> {
    settle(acks, Verdict::GivenBack).await
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Done,
    GivenBack,
}

/// Settles messages. Everything is handed to the connections before any of it is awaited, so that it is written together.
async fn settle(acks: impl IntoIterator<Item = Ack>, verdict: Verdict) -> Result<(), QueueError> {
    let mut acks: Vec<Ack> = acks.into_iter().collect();
    acks.sort_unstable_by_key(|ack| (Arc::as_ptr(&ack.channel), ack.delivery_tag));
    let channels = acks.chunk_by(|one, other| Arc::ptr_eq(&one.channel, &other.channel));
    let settled = join_all(channels.map(|acks| async move {
        let tags: Vec<u64> = acks.iter().map(|ack| ack.delivery_tag).collect();
        acks[0].channel.settle(&tags, verdict).await
    }));
    within_deadline(async { settled.await.into_iter().collect() }).await
}

/// A channel that consumes, and its messages that are not settled.
#[derive(Debug)]
struct ConsumedChannel {
    channel: Channel,
    /// Locked until what was decided is handed to the connection, so that it is sent in the order of the decisions.
    unsettled: Mutex<UnsettledTags>,
}

impl ConsumedChannel {
    /// Settles the messages with these tags, in ascending order.
    async fn settle(&self, tags: &[u64], verdict: Verdict) -> lapin::Result<()> {
        let mut unsettled = self.unsettled.lock().await;
        let sent = join_all(unsettled.settle(tags).into_iter().map(|(tag, multiple)| async move {
            match verdict {
                Verdict::Done => self.channel.basic_ack(tag, BasicAckOptions { multiple }).await,
                Verdict::GivenBack => {
                    self.channel.basic_nack(tag, BasicNackOptions { multiple, requeue: true }).await
                }
            }
        }));
        sent.await.into_iter().collect()
    }
}

/// The tags of a channel's messages that are not settled. RabbitMQ counts them up from 1.
#[derive(Debug, Default)]
struct UnsettledTags {
    /// The highest one that was settled.
    highest: u64,
    /// Those below it that are not; no more than the channel's prefetch.
    below: BTreeSet<u64>,
}

impl UnsettledTags {
    /// Notes that messages are settled, and returns which tags say so, and whether one stands for all before it. What is below every
    /// message that is still under way is settled by one tag, and the rest by one each: it must not wait for a slow delivery.
    fn settle(&mut self, tags: &[u64]) -> Vec<(u64, bool)> {
        if let Some(highest) = tags.last().copied().filter(|highest| *highest > self.highest) {
            self.below.extend(self.highest + 1..highest);
            self.highest = highest;
        }
        for tag in tags {
            self.below.remove(tag);
        }
        let first_left = self.below.first().copied().unwrap_or(u64::MAX);
        let (together, singly) = tags.split_at(tags.partition_point(|tag| *tag < first_left));
        let together = together.last().map(|last| (*last, together.len() > 1));
        together.into_iter().chain(singly.iter().map(|tag| (*tag, false))).collect()
    }
}

/// A running consumer.
pub struct QueueConsumer {
    channel: Arc<ConsumedChannel>,
    consumer: Consumer,
    /// A consumer reports its end once; another poll would wait indefinitely.
    ended: bool,
}

impl QueueConsumer {
    /// Declares the queue if it is missing and consumes it. At most `prefetch` messages are unacknowledged.
    pub async fn start(connection: &QueueConnection, queue: &str, prefetch: u16) -> Result<Self, QueueError> {
        let channel = connection.channel().await?;
        declare(&channel, queue).await?;
        within_deadline(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer =
            within_deadline(channel.basic_consume(queue.into(), "".into(), options, arguments)).await?;
        let channel = Arc::new(ConsumedChannel { channel, unsettled: Mutex::default() });
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
        within_deadline(self.channel.channel.basic_cancel(self.consumer.tag(), options)).await
    }

    /// Closes the channel; messages that are not acknowledged return to the queue.
    pub async fn close(self) -> Result<(), QueueError> {
        within_deadline(self.channel.channel.close(200, "stopping".into())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_settles_all_before_it_and_none_that_is_under_way() {
        let mut unsettled = UnsettledTags::default();
        assert_eq!(unsettled.settle(&[1, 2, 3]), [(3, true)]);
        assert_eq!(unsettled.settle(&[5, 7, 8]), [(5, false), (7, false), (8, false)], "4 is under way");
        assert_eq!(unsettled.settle(&[4, 9]), [(4, false), (9, false)], "6 is under way");
        assert_eq!(unsettled.settle(&[6]), [(6, false)]);
        assert_eq!(unsettled.settle(&[10, 11, 13]), [(11, true), (13, false)]);
        assert_eq!(unsettled.settle(&[12, 14, 15]), [(15, true)]);
        assert!(unsettled.below.is_empty(), "{unsettled:?}");
    }
}
