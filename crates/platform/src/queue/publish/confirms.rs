//! Hands batches of hints to a channel and awaits their confirms.

use grapnel_core::hint::{self, Hint, QueueKey};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::queue::{DEADLINE, QueueError, within_deadline};

/// AMQP's delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Hints of one queue that are published together.
#[derive(Debug)]
pub(super) struct HintBatch {
    pub(super) queue: QueueKey,
    pub(super) name: ShortString,
    pub(super) hints: Vec<Hint>,
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
    pub(super) batch: HintBatch,
    /// One for each hint, in order; fewer when the deadline passed or the channel ended before.
    pub(super) answers: Vec<Answer>,
    /// Whether the channel ended before the rest was answered.
    pub(super) is_cut_off: bool,
}

impl SettledBatch {
    pub(super) fn is_late(&self) -> bool {
        !self.is_cut_off && self.answers.len() < self.batch.hints.len()
    }
}

/// Publishes a message for each hint, and returns the batches as they wait for their confirms. All messages are handed to the
/// connection before any is awaited: awaiting each one would switch threads for each.
pub(super) async fn publish_batches<'a>(
    channel: &Channel,
    batches: Vec<HintBatch>,
    ended: &'a CancellationToken,
) -> Result<Vec<impl Future<Output = SettledBatch> + use<'a>>, (Vec<HintBatch>, QueueError)> {
    let messages: Vec<(&ShortString, Vec<u8>)> = batches
        .iter()
        .flat_map(|batch| batch.hints.iter().map(|hint| (&batch.name, hint::encode(hint.event_id))))
        .collect();
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let published = messages.iter().map(|(name, message)| {
        channel.basic_publish(ShortString::default(), (*name).clone(), options, message, properties.clone())
    });
    let mut confirms = match within_deadline(futures::future::try_join_all(published)).await {
        Ok(confirms) => confirms.into_iter(),
        Err(error) => return Err((batches, error)),
    };
    let deadline = Instant::now() + DEADLINE;
    let waiting = batches.into_iter().map(|batch| {
        let confirms = confirms.by_ref().take(batch.hints.len()).collect();
        settle(batch, confirms, deadline, ended)
    });
    Ok(waiting.collect())
}

/// Awaits the confirms of one queue's hints, in order, up to the deadline or the end of the channel.
async fn settle(
    batch: HintBatch,
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
