//! What a queue message says: "this delivery may be ready". A hint, never the truth: losing it delays, repeating it
//! does nothing. The delivery's row in PostgreSQL decides.

use crate::ids::{EventId, IntegrationId};
use serde::{Deserialize, Serialize};

/// A delivery to be looked at. The queue says which destination; the message carries only the event's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    pub integration_id: IntegrationId,
    pub destination: std::sync::Arc<str>,
    pub event_id: EventId,
}

/// The body of a message, JSON. `v` is the version of its form.
#[derive(Debug, Serialize, Deserialize)]
struct Body {
    v: u8,
    #[serde(rename = "eventId")]
    event_id: EventId,
}

const VERSION: u8 = 1;

/// The bytes of the message for an event.
pub fn encode(event_id: EventId) -> Vec<u8> {
    format!(r#"{{"v":{VERSION},"eventId":"{event_id}"}}"#).into_bytes()
}

/// The event's id in a message; `None` for anything that this version does not understand.
pub fn decode(message: &[u8]) -> Option<EventId> {
    let body: Body = serde_json::from_slice(message).ok()?;
    (body.v == VERSION).then_some(body.event_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let id = EventId::generate();
        assert_eq!(decode(&encode(id)), Some(id));
    }

    #[test]
    fn what_is_not_a_message_of_ours_is_not_understood() {
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
