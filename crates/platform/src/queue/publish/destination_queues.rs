//! All queues that messages were published to, and what became of these.

use std::collections::HashMap;

use grapnel_core::error_chain::chain;
use grapnel_core::hint::{self, HintMessage, QueueKey};
use grapnel_crds::names;
use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;
use tokio::time::Instant;

use super::BATCH;
use super::confirms::{Answer, MessageBatch, SettledBatch};
use super::destination_queue::DestinationQueue;
use super::holds::QueueHolds;
use super::tracker::{HintTracker, PublishFailure};
use crate::queue::QueueError;

/// Queues that are remembered. At this number the idle ones are forgotten; each is declared again when it is needed.
const MAX_QUEUES: usize = 16_384;

/// The queues by their key.
#[derive(Debug)]
pub(super) struct DestinationQueues {
    prefix: String,
    max_length: usize,
    pub(super) tracker: HintTracker,
    holds: QueueHolds,
    by_key: HashMap<QueueKey, DestinationQueue>,
    /// Queues whose state changed since messages were taken last.
    changed: Vec<QueueKey>,
    unsettled: usize,
}

impl DestinationQueues {
    pub(super) fn new(prefix: String, max_length: usize, tracker: HintTracker, holds: QueueHolds) -> Self {
        let (by_key, changed) = (HashMap::new(), Vec::new());
        Self { prefix, max_length, tracker, holds, by_key, changed, unsettled: 0 }
    }

    /// Returns the number of messages that were admitted and are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Lets the messages wait for their turn. Those of a queue that backs off are handed back.
    pub(super) fn admit(&mut self, messages: impl Iterator<Item = HintMessage>, now: Instant) {
        for message in messages {
            let key = message.queue.clone();
            let queue = self.queue(&key, now);
            let is_backing_off = queue.backoff(now).is_some();
            match if is_backing_off { Err(message) } else { queue.push(message) } {
                Ok(()) => self.unsettled += 1,
                Err(message) if is_backing_off => self.tracker.failed(message, PublishFailure::BackingOff),
                Err(message) => self.tracker.failed(message, PublishFailure::NoRoom),
            }
            self.note_change(key);
        }
    }

    /// Has the length of a queue read again, for somebody who asks whether it is still long.
    pub(super) fn ask_for_length(&mut self, key: QueueKey, now: Instant) {
        if self.queue(&key, now).ask_for_length(now) {
            self.note_change(key);
        }
    }

    fn queue(&mut self, key: &QueueKey, now: Instant) -> &mut DestinationQueue {
        if !self.by_key.contains_key(key) {
            if self.by_key.len() >= MAX_QUEUES {
                self.by_key.retain(|_, queue| !queue.is_idle(now));
                self.holds.retain(|key| self.by_key.contains_key(key));
            }
            let name = names::queue_name(&self.prefix, key.0.uuid(), &key.1);
            self.by_key.insert(key.clone(), DestinationQueue::new(ShortString::from(name)));
        }
        self.by_key.get_mut(key).expect("it was there or was inserted")
    }

    fn note_change(&mut self, key: QueueKey) {
        // Messages of one queue often follow each other.
        if self.changed.last() != Some(&key) {
            self.changed.push(key);
        }
    }

    /// Returns the changed queues that have to be declared first.
    pub(super) fn take_undeclared(&mut self) -> Vec<(QueueKey, ShortString)> {
        let mut undeclared = Vec::new();
        for key in &self.changed {
            if let Some(queue) = self.by_key.get_mut(key)
                && queue.begin_declaration()
            {
                undeclared.push((key.clone(), queue.name.clone()));
            }
        }
        undeclared
    }

    /// Takes the messages of changed queues whose turn it is.
    pub(super) fn take_ready(&mut self) -> Vec<MessageBatch> {
        let mut batches = Vec::new();
        for key in std::mem::take(&mut self.changed) {
            let Some(queue) = self.by_key.get_mut(&key) else { continue };
            loop {
                let messages = queue.take_ready(BATCH);
                if messages.is_empty() {
                    break;
                }
                let (name, is_retry) = (queue.name.clone(), queue.is_failing());
                batches.push(MessageBatch { queue: key.clone(), name, messages, is_retry });
            }
            self.holds.set_message_size(&key, queue.message_size());
        }
        batches
    }

    /// Notes that a queue was declared and how many messages it has, or why it was not.
    pub(super) fn declared(&mut self, key: &QueueKey, declared: Result<u32, QueueError>, now: Instant) {
        match declared {
            Ok(messages) => {
                if let Some(queue) = self.by_key.get_mut(key) {
                    if queue.declared(messages as usize, self.max_length) {
                        self.holds.set_long(key);
                    } else {
                        self.holds.set_short(key);
                    }
                }
                self.note_change(key.clone());
            }
            Err(error) if error.is_mismatch() => self.failed(key, PublishFailure::Mismatch, now),
            Err(error) => {
                tracing::warn!(error = %chain(&error), destination = &*key.1, "a queue cannot be declared");
                self.failed(key, PublishFailure::NotDeclared, now);
            }
        }
    }

    /// Ends the messages of a batch as the broker answered.
    ///
    /// # Errors
    /// When the channel failed.
    pub(super) fn settle(&mut self, settled: SettledBatch, now: Instant) -> Result<(), QueueError> {
        let is_late = settled.is_late();
        let SettledBatch { batch: MessageBatch { queue: key, messages, .. }, answers, .. } = settled;
        self.ended(&key, messages.len());
        let (mut confirmed, mut failure, mut result, mut returned) = (0, None, Ok(()), Vec::new());
        let (mut failed, mut cut_off) = (Vec::new(), Vec::new());
        let mut answers = answers.into_iter();
        for message in messages {
            match answers.next() {
                Some(Answer::Confirmed) => confirmed += 1,
                Some(Answer::WithReturned { is_confirmed, returned: other }) => {
                    if is_confirmed || hint::decode(&other.delivery.data).as_ref() == Some(&message.event_ids)
                    {
                        confirmed += 1;
                    } else {
                        failure = Some(PublishFailure::Refused);
                        failed.push((message, PublishFailure::Refused));
                    }
                    returned.push(*other);
                }
                Some(Answer::Refused) => {
                    failure = Some(PublishFailure::Refused);
                    failed.push((message, PublishFailure::Refused));
                }
                Some(Answer::ChannelFailed(error)) => {
                    result = Err(error.into());
                    cut_off.push(message);
                }
                None if is_late => {
                    failure = failure.or(Some(PublishFailure::Unconfirmed));
                    failed.push((message, PublishFailure::Unconfirmed));
                }
                None => cut_off.push(message),
            }
        }
        self.tracker.confirmed(&key, confirmed);
        let is_all_confirmed = failed.is_empty() && cut_off.is_empty() && returned.is_empty();
        if let Some(failure) = failure {
            self.failed(&key, failure, now);
        }
        for message in returned {
            self.returned(&message, now);
        }
        for (message, failure) in failed {
            self.tracker.failed(message, failure);
        }
        for message in cut_off {
            self.tracker.failed(message, PublishFailure::Disconnected);
        }
        if is_all_confirmed && let Some(queue) = self.by_key.get_mut(&key) {
            if queue.succeeded() {
                tracing::info!(queue = queue.name.as_str(), "hints are published again");
            }
            self.holds.set_working(&key, queue.narrow_window());
        }
        self.note_change(key);
        result
    }

    /// Hands back a returned message. It has ended with its confirm.
    fn returned(&mut self, returned: &BasicReturnMessage, now: Instant) {
        let name = &returned.delivery.routing_key;
        let key = self.by_key.iter().find(|(_, queue)| queue.name == *name).map(|(key, _)| key.clone());
        // Only our own messages are returned to us.
        let (Some(queue), Some(event_ids)) = (key, hint::decode(&returned.delivery.data)) else { return };
        self.failed(&queue, PublishFailure::Returned, now);
        self.tracker.hand_back(HintMessage { queue, event_ids }, PublishFailure::Returned);
    }

    /// Lets a queue back off, and hands back the messages that wait for it.
    fn failed(&mut self, key: &QueueKey, failure: PublishFailure, now: Instant) {
        let Some(queue) = self.by_key.get_mut(key) else { return };
        let is_new = queue.failed(now);
        if is_new {
            let wait = queue.backoff(now).unwrap_or_default();
            self.holds.set_failing(key, now + wait, queue.narrow_window().unwrap_or(usize::MAX));
            tracing::warn!(
                queue = queue.name.as_str(), reason = %failure, retry_in_ms = wait.as_millis() as u64,
                "hints cannot be published to a queue"
            );
        }
        let waiting = queue.take_waiting();
        self.unsettled = self.unsettled.saturating_sub(waiting.len());
        for message in waiting {
            self.tracker.failed(message, PublishFailure::BackingOff);
        }
    }

    fn ended(&mut self, key: &QueueKey, messages: usize) {
        self.unsettled = self.unsettled.saturating_sub(messages);
        if let Some(queue) = self.by_key.get_mut(key) {
            queue.ended(messages);
        }
    }

    /// Hands back messages that the channel did not take.
    pub(super) fn hand_back(&mut self, batches: Vec<MessageBatch>) {
        for batch in batches {
            self.ended(&batch.queue, batch.messages.len());
            for message in batch.messages {
                self.tracker.failed(message, PublishFailure::Disconnected);
            }
        }
    }

    /// Hands back all messages that wait, and forgets what depended on the channel.
    pub(super) fn channel_ended(&mut self) {
        self.changed.clear();
        self.unsettled = 0;
        for queue in self.by_key.values_mut() {
            queue.channel_ended();
            for message in queue.take_waiting() {
                self.tracker.failed(message, PublishFailure::Disconnected);
            }
        }
    }
}
