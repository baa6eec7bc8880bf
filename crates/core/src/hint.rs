//! The queue message: "this delivery may be ready". It is a hint, never the truth: losing it causes a delay, repeating it
//! does nothing. The delivery's row in PostgreSQL decides.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{EventId, IntegrationId};

/// A delivery that may be ready. The queue identifies the destination; the message contains only the event's id.
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
}

/// The body of a message in JSON. `v` is the version of its format.
#[derive(Debug, Serialize, Deserialize)]
struct HintMessage {
    v: u8,
    #[serde(rename = "eventId")]
    event_id: EventId,
}

const VERSION: u8 = 1;

/// Returns the bytes of the message for an event.
pub fn encode(event_id: EventId) -> Vec<u8> {
    format!(r#"{{"v":{VERSION},"eventId":"{event_id}"}}"#).into_bytes()
}

/// Returns the event's id in a message; `None` for anything that this version does not understand.
pub fn decode(message: &[u8]) -> Option<EventId> {
    let body: HintMessage = serde_json::from_slice(message).ok()?;
    (body.v == VERSION).then_some(body.event_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_decoded_as_it_was_encoded() {
        let id = EventId::generate();
        assert_eq!(decode(&encode(id)), Some(id));
    }

    #[test]
    fn a_foreign_message_is_not_understood() {
        for message in [
            &b""[..],
            b"{}",
            b"null",
            br#"{"v":2,"eventId":"01932f0c-0000-7000-8000-000000000000"}"#,
            b"\xff",
        ] {
            assert_eq!(decode(message), None);
        }
    }
}
