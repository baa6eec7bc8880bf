//! The queue message: "these deliveries may be ready". It is a hint, never the truth: losing it causes a delay, repeating it
//! does nothing. The deliveries' rows in PostgreSQL decide.
//!
//! A message names up to [`MAX_IDS`] events, all of one destination. One with a single event has the first version of the format, which
//! every worker reads; one with several has the second.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::Deserialize;

use crate::ids::{EventId, IntegrationId};

/// Events that one message names at most. More would save little: what a message costs is divided by their number.
pub const MAX_IDS: NonZeroUsize = NonZeroUsize::new(32).expect("more than none");

/// Events in a message that are still read: a later version may name more than this one.
const MAX_IDS_READ: usize = 64;

/// A delivery that may be ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    pub integration_id: IntegrationId,
    pub destination: Arc<str>,
    pub event_id: EventId,
}

/// The destination that a queue belongs to.
pub type QueueKey = (IntegrationId, Arc<str>);

impl Hint {
    /// Returns the key of the queue that the hint is for.
    pub fn queue(&self) -> QueueKey {
        (self.integration_id, Arc::clone(&self.destination))
    }

    fn is_for(&self, queue: &QueueKey) -> bool {
        self.integration_id == queue.0 && self.destination == queue.1
    }
}

/// The hints of one message. The queue identifies the destination; the message contains only the ids of the events, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintMessage {
    pub queue: QueueKey,
    pub event_ids: Vec<EventId>,
}

impl HintMessage {
    /// Returns the hints one by one.
    pub fn into_hints(self) -> impl Iterator<Item = Hint> {
        let (integration_id, destination) = self.queue;
        self.event_ids.into_iter().map(move |event_id| Hint {
            integration_id,
            destination: Arc::clone(&destination),
            event_id,
        })
    }
}

impl From<Hint> for HintMessage {
    fn from(hint: Hint) -> Self {
        Self { queue: hint.queue(), event_ids: vec![hint.event_id] }
    }
}

/// Puts the hints of each queue into as few messages of at most `limit` as possible, in their order.
pub fn group(hints: impl IntoIterator<Item = Hint>, limit: NonZeroUsize) -> Vec<HintMessage> {
    let mut messages: Vec<HintMessage> = Vec::new();
    // The message of a queue that has room. Looked up only where hints of several queues alternate.
    let mut open: HashMap<QueueKey, usize> = HashMap::new();
    let mut current = 0;
    for hint in hints {
        if !messages.get(current).is_some_and(|message| hint.is_for(&message.queue)) {
            match open.get(&hint.queue()) {
                Some(position) => current = *position,
                None => {
                    current = messages.len();
                    open.insert(hint.queue(), current);
                    messages.push(hint.into());
                    continue;
                }
            }
        }
        if messages[current].event_ids.len() < limit.get() {
            messages[current].event_ids.push(hint.event_id);
        } else {
            current = messages.len();
            open.insert(hint.queue(), current);
            messages.push(hint.into());
        }
    }
    messages
}

/// Returns how many messages [`group`] makes of so many deliveries to one destination.
pub fn messages_for(deliveries: usize, limit: NonZeroUsize) -> usize {
    deliveries.div_ceil(limit.get())
}

/// The body of a message in JSON. `v` is the version of its format.
#[derive(Debug, Deserialize)]
struct Body {
    v: u8,
    #[serde(rename = "eventId")]
    event_id: Option<EventId>,
    #[serde(rename = "eventIds", default)]
    event_ids: Vec<EventId>,
}

/// Returns the bytes of the message for these events.
pub fn encode(event_ids: &[EventId]) -> Vec<u8> {
    if let [event_id] = event_ids {
        return format!(r#"{{"v":1,"eventId":"{event_id}"}}"#).into_bytes();
    }
    const LENGTH_OF_ID: usize = 39;
    let mut body = String::with_capacity(24 + event_ids.len() * LENGTH_OF_ID);
    body.push_str(r#"{"v":2,"eventIds":["#);
    for (position, event_id) in event_ids.iter().enumerate() {
        body.push_str(if position == 0 { "\"" } else { "\",\"" });
        body.push_str(event_id.uuid().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    }
    body.push_str("\"]}");
    body.into_bytes()
}

/// Returns the ids in a message, at least one; `None` for anything that this version does not understand.
pub fn decode(message: &[u8]) -> Option<Vec<EventId>> {
    let body: Body = serde_json::from_slice(message).ok()?;
    match body.v {
        1 => Some(vec![body.event_id?]),
        2 if (1..=MAX_IDS_READ).contains(&body.event_ids.len()) => Some(body.event_ids),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<EventId> {
        std::iter::repeat_with(EventId::generate).take(count).collect()
    }

    fn hint(destination: &str, event_id: EventId) -> Hint {
        let integration_id = IntegrationId::new(uuid::Uuid::nil());
        Hint { integration_id, destination: destination.into(), event_id }
    }

    #[test]
    fn a_message_is_decoded_as_it_was_encoded() {
        for count in [1, 2, MAX_IDS.get(), MAX_IDS_READ] {
            let ids = ids(count);
            assert_eq!(decode(&encode(&ids)), Some(ids));
        }
    }

    #[test]
    fn a_message_of_one_event_has_the_form_that_every_version_reads() {
        let id: EventId = "01932f0c-0000-7000-8000-000000000000".parse().expect("an id");
        assert_eq!(encode(&[id]), br#"{"v":1,"eventId":"01932f0c-0000-7000-8000-000000000000"}"#);
        let two = br#"{"v":2,"eventIds":["01932f0c-0000-7000-8000-000000000000","01932f0c-0000-7000-8000-000000000000"]}"#;
        assert_eq!(encode(&[id, id]), two);
    }

    #[test]
    fn a_foreign_message_is_not_understood() {
        let too_many = encode(&ids(MAX_IDS_READ + 1));
        for message in [
            &b""[..],
            b"{}",
            b"null",
            br#"{"v":1}"#,
            br#"{"v":2,"eventIds":[]}"#,
            br#"{"v":2,"eventId":"01932f0c-0000-7000-8000-000000000000"}"#,
            br#"{"v":3,"eventId":"01932f0c-0000-7000-8000-000000000000"}"#,
            b"\xff",
            &too_many,
        ] {
            assert_eq!(decode(message), None);
        }
    }

    #[test]
    fn hints_of_a_queue_share_messages_wherever_they_are() {
        let limit = NonZeroUsize::new(2).expect("two");
        let ids = ids(7);
        let destinations = ["a", "b", "a", "b", "a", "a", "b"];
        let hints = destinations.iter().zip(&ids).map(|(destination, id)| hint(destination, *id));
        let messages = group(hints, limit);
        let grouped: Vec<(&str, &[EventId])> =
            messages.iter().map(|message| (&*message.queue.1, &message.event_ids[..])).collect();
        let expected = [
            ("a", &[ids[0], ids[2]][..]),
            ("b", &[ids[1], ids[3]]),
            ("a", &[ids[4], ids[5]]),
            ("b", &[ids[6]]),
        ];
        assert_eq!(grouped, expected);
        assert_eq!(messages_for(4, limit) + messages_for(3, limit), messages.len());
        assert!(group([], limit).is_empty());
    }
}
