//! Hands batches of messages to a channel and awaits their confirms.

use grapnel_core::hint::{self, HintMessage, QueueKey};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::current_channel::open;
use crate::queue::{DEADLINE, QueueConnection, QueueError, within_deadline};

/// AMQP's delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Messages of one queue that are published together.
#[derive(Debug)]
pub(super) struct MessageBatch {
    pub(super) queue: QueueKey,
    pub(super) name: ShortString,
    pub(super) messages: Vec<HintMessage>,
    /// Whether the queue has failed and is tried again.
    pub(super) is_retry: bool,
}

/// The answer of the broker to one message.
#[derive(Debug)]
pub(super) enum Answer {
    Confirmed,
    Refused,
    /// With a message that was returned: mostly this one, but lapin attaches it to whichever confirm comes next.
    WithReturned {
        is_confirmed: bool,
        returned: Box<BasicReturnMessage>,
    },
    ChannelFailed(lapin::Error),
}

/// A batch whose confirms have come, or will not be awaited any longer.
#[derive(Debug)]
pub(super) struct SettledBatch {
    pub(super) batch: MessageBatch,
    /// One for each message, in order; fewer when the deadline passed or the channel ended before.
    pub(super) answers: Vec<Answer>,
    /// Whether the channel ended before the rest was answered.
    pub(super) is_cut_off: bool,
}

impl SettledBatch {
    fn unanswered(batch: MessageBatch, is_cut_off: bool) -> Self {
        Self { batch, answers: Vec::new(), is_cut_off }
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.answers.len() == self.batch.messages.len()
            && self.answers.iter().all(|answer| matches!(answer, Answer::Confirmed))
    }

    pub(super) fn is_late(&self) -> bool {
        !self.is_cut_off && self.answers.len() < self.batch.messages.len()
    }
}

/// Publishes batches, and returns them as they wait for their confirms. All messages are handed to the connection before any is
/// awaited: awaiting each one would switch threads for each.
pub(super) async fn publish_batches<'a>(
    channel: &Channel,
    batches: Vec<MessageBatch>,
    ended: &'a CancellationToken,
) -> Result<Vec<impl Future<Output = SettledBatch> + use<'a>>, (Vec<MessageBatch>, QueueError)> {
    let mut confirms = match hand_over(channel, &batches).await {
        Ok(confirms) => confirms.into_iter(),
        Err(error) => return Err((batches, error)),
    };
    let deadline = Instant::now() + DEADLINE;
    let waiting = batches.into_iter().map(|batch| {
        let confirms = confirms.by_ref().take(batch.messages.len()).collect();
        settle(batch, confirms, deadline, ended)
    });
    Ok(waiting.collect())
}

/// Hands the messages to the connection, and returns their confirms in the same order.
async fn hand_over(channel: &Channel, batches: &[MessageBatch]) -> Result<Vec<PublisherConfirm>, QueueError> {
    let messages: Vec<(&ShortString, Vec<u8>)> = batches
        .iter()
        .flat_map(|batch| {
            batch.messages.iter().map(|message| (&batch.name, hint::encode(&message.event_ids)))
        })
        .collect();
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let published = messages.iter().map(|(name, message)| {
        channel.basic_publish(ShortString::default(), (*name).clone(), options, message, properties.clone())
    });
    within_deadline(futures::future::try_join_all(published)).await
}

/// Publishes a batch to a queue that has failed, on a channel of its own, which ends with it: the first message of a channel to a queue
/// that has lost its majority stops everything else on the channel for seconds, while RabbitMQ registers the channel with the queue. What
/// becomes of the channel concerns only the queue.
pub(super) async fn try_batch(
    connection: &QueueConnection,
    batch: MessageBatch,
    ended: &CancellationToken,
) -> SettledBatch {
    let channel = match ended.run_until_cancelled(open(connection)).await {
        Some(Ok((channel, _))) => channel,
        Some(Err(_)) => return SettledBatch::unanswered(batch, false),
        None => return SettledBatch::unanswered(batch, true),
    };
    let Ok(confirms) = hand_over(&channel, std::slice::from_ref(&batch)).await else {
        return SettledBatch::unanswered(batch, false);
    };
    let mut settled = settle(batch, confirms, Instant::now() + DEADLINE, ended).await;
    settled.answers.retain(|answer| !matches!(answer, Answer::ChannelFailed(_)));
    settled
}

/// Awaits the confirms of one queue's messages, in order, up to the deadline or the end of the channel.
async fn settle(
    batch: MessageBatch,
    confirms: Vec<PublisherConfirm>,
    deadline: Instant,
    ended: &CancellationToken,
) -> SettledBatch {
    let mut answers = Vec::with_capacity(confirms.len());
    let all = async {
        for confirm in confirms {
            answers.push(match confirm.await {
                Ok(Confirmation::Ack(None)) => Answer::Confirmed,
                Ok(Confirmation::Ack(Some(returned))) => {
                    Answer::WithReturned { is_confirmed: true, returned: Box::new(returned) }
                }
                Ok(Confirmation::Nack(Some(returned))) => {
                    Answer::WithReturned { is_confirmed: false, returned: Box::new(returned) }
                }
                Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => Answer::Refused,
                Err(error) => Answer::ChannelFailed(error),
            });
        }
    };
    let is_cut_off = ended.run_until_cancelled(timeout_at(deadline, all)).await.is_none();
    SettledBatch { batch, answers, is_cut_off }
}
