//! The channel that is published on, and when another one takes its place.

use std::sync::Arc;
use std::time::Duration;

use grapnel_core::hint::QueueKey;
use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::watch::error::RecvError;
use tokio::time::Instant;

use super::confirms::SettledBatch;
use crate::queue::connection::BlockedReason;
use crate::queue::{QueueConnection, QueueError, within_deadline};

/// When a queue that failed works again, what follows is published on a channel that is not older: a channel goes on to refuse messages
/// for a queue whose limit was lifted.
const MAX_AGE_AFTER_TRIAL: Duration = Duration::from_secs(10);

/// Opens a channel with confirms, and returns what is known about its connection.
pub(super) async fn open(connection: &QueueConnection) -> Result<(Channel, BlockedReason), QueueError> {
    let (channel, blocked) = connection.publishing_channel().await?;
    within_deadline(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok((channel, blocked))
}

/// The channel with confirms that is published on.
#[derive(Debug)]
pub(super) struct CurrentChannel {
    channel: Channel,
    blocked: BlockedReason,
    opened_at: Instant,
    /// Whether a queue that failed works again.
    is_trial_over: bool,
    /// The one before stays open until what was published on it is settled.
    previous: Option<Channel>,
}

impl CurrentChannel {
    pub(super) async fn open(connection: &QueueConnection) -> Result<Self, QueueError> {
        let (channel, blocked) = open(connection).await?;
        Ok(Self { channel, blocked, opened_at: Instant::now(), is_trial_over: false, previous: None })
    }

    pub(super) fn get(&self) -> &Channel {
        &self.channel
    }

    /// Waits until the connection is blocked, and returns the reason. Fails when it will not be told any more.
    pub(super) async fn why_blocked(&mut self) -> Result<Arc<str>, RecvError> {
        let reason = self.blocked.wait_for(Option::is_some).await?.clone();
        Ok(reason.unwrap_or_default())
    }

    /// Notes how the trial of a queue that had failed ended.
    pub(super) fn note_trial(&mut self, tried: &SettledBatch) {
        self.is_trial_over |= tried.is_confirmed();
    }

    /// Opens another channel in place of one that is too old for a queue which works again.
    pub(super) async fn renew_if_due(&mut self, connection: &QueueConnection) -> Result<(), QueueError> {
        if self.is_trial_over && self.opened_at.elapsed() >= MAX_AGE_AFTER_TRIAL {
            let before = std::mem::replace(self, Self::open(connection).await?);
            self.previous = Some(before.channel);
        }
        Ok(())
    }
}

/// The queue whose confirms were late, if none has come in time since: by it a channel that is stuck is told from a queue that commits nothing.
#[derive(Debug, Default)]
pub(super) struct LateQueue(Option<QueueKey>);

impl LateQueue {
    /// Notes the end of a batch, and returns whether the channel is stuck: two queues are late, and nothing came between. RabbitMQ reads nothing more while it
    /// keeps too much for a queue that has lost its majority, which is the first one. All others go on at once on another connection, and nothing is held
    /// against them: theirs are cut off.
    pub(super) fn note(&mut self, settled: &mut SettledBatch) -> bool {
        let before = self.0.take();
        if !settled.is_late() {
            return false;
        }
        let is_stuck = before.as_ref().is_some_and(|first| *first != settled.batch.queue);
        settled.is_cut_off = is_stuck;
        self.0 = before.or_else(|| Some(settled.batch.queue.clone()));
        is_stuck
    }
}
