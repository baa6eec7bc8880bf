//! Typed ids: an event's id cannot be mistaken for an integration's.
//!
//! Each is a UUID; those that processes generate are UUIDv7, which contain the time of their creation. The store converts
//! them where it binds and reads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Returns the id with this value.
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// Generates a new id, a UUIDv7 of the current time.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Returns the id's value.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// Returns the id's 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

typed_id! {
    /// The id of an Integration: derived from its namespace and name, or from its uid in a cluster.
    IntegrationId
}
typed_id! {
    /// The id of an event, which is also `webhook-id` of its deliveries.
    EventId
}
typed_id! {
    /// The id of a claim: the holder of a delivery's newest claim may write its next result.
    LeaseId
}
typed_id! {
    /// The id of a replay request.
    ReplayId
}
typed_id! {
    /// The id of a recorded attempt.
    AttemptId
}
typed_id! {
    /// The id of an audit entry.
    AuditEntryId
}
