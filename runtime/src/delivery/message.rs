//! A message and the deliveries that it names. It is settled once, when the last of them has ended, so a slow one holds up none of the
//! others: these end, and only their message waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use grapnel_core::error_chain::chain;
use grapnel_core::ids::EventId;
use grapnel_platform::queue::consume::{self, Ack};

/// A delivery of a message that has not ended. Dropped, its message is never settled, and returns to the queue when the channel
/// closes.
#[derive(Debug)]
pub(super) struct MessagePart {
    pub event_id: EventId,
    message: Arc<Message>,
}

#[derive(Debug)]
struct Message {
    /// Taken by whoever settles it.
    ack: Mutex<Option<Ack>>,
    /// Deliveries that have not ended.
    left: AtomicUsize,
    /// Whether a delivery is to be queued again.
    is_given_back: AtomicBool,
}

/// How a delivery of a message has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartEnd {
    /// Its row says how it goes on.
    Done,
    /// Another worker is to have it.
    GivenBack,
}

/// Returns the deliveries of a message.
pub(super) fn parts(event_ids: Vec<EventId>, ack: Ack) -> impl Iterator<Item = MessagePart> {
    let message = Arc::new(Message {
        ack: Mutex::new(Some(ack)),
        left: AtomicUsize::new(event_ids.len()),
        is_given_back: AtomicBool::new(false),
    });
    event_ids.into_iter().map(move |event_id| MessagePart { event_id, message: Arc::clone(&message) })
}

/// Ends deliveries. Messages of which nothing is left are acknowledged, or given back if one of their deliveries was.
pub(super) async fn end(parts: impl IntoIterator<Item = MessagePart>, end: PartEnd) {
    let (mut done, mut given_back) = (Vec::new(), Vec::new());
    for MessagePart { message, .. } in parts {
        if end == PartEnd::GivenBack {
            message.is_given_back.store(true, Ordering::Relaxed);
        }
        // What was stored before by others is seen by whoever is the last.
        if message.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(ack) = message.take_ack()
        {
            if message.is_given_back.load(Ordering::Relaxed) { &mut given_back } else { &mut done }.push(ack);
        }
    }
    settle(done, given_back).await;
}

/// Gives the messages of deliveries that were not started back at once, even if others of them have not ended: their claims keep them.
pub(super) async fn give_back_now(parts: impl IntoIterator<Item = MessagePart>) {
    settle(Vec::new(), parts.into_iter().filter_map(|part| part.message.take_ack()).collect()).await;
}

/// Acknowledges a message.
pub(super) async fn acknowledge(ack: Ack) {
    settle(vec![ack], Vec::new()).await;
}

/// Gives a message back.
pub(super) async fn give_back(acks: Vec<Ack>) {
    settle(Vec::new(), acks).await;
}

async fn settle(done: Vec<Ack>, given_back: Vec<Ack>) {
    let acknowledged = async { if done.is_empty() { Ok(()) } else { consume::acknowledge(done).await } };
    let returned =
        async { if given_back.is_empty() { Ok(()) } else { consume::give_back(given_back).await } };
    let (acknowledged, returned) = futures::join!(acknowledged, returned);
    if let Err(error) = acknowledged.and(returned) {
        tracing::debug!(error = %chain(&error), "messages could not be settled; RabbitMQ delivers them again");
    }
}

impl Message {
    fn take_ack(&self) -> Option<Ack> {
        self.ack.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
