//! Typed ids: an event's id cannot be mistaken for an integration's.
//!
//! Each is a UUID; those that processes generate are UUIDv7, which contain the time of their creation. The store converts
//! them where it binds and reads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::{ContextV7, Timestamp, Uuid};

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        typed_id! { $(#[$doc])* $name, Uuid::now_v7 }
    };
    ($(#[$doc:meta])* $name:ident, $generate:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Returns the id with this value.
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// Generates a new id, which begins with the current time.
            pub fn generate() -> Self {
                Self($generate())
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
    /// The id of a request that carries several events.
    RequestId
}
typed_id! {
    /// The id of a claim: the holder of a delivery's newest claim may write its next result.
    LeaseId
}

/// The id of a claimant: one session of a worker with PostgreSQL, together with one connection of it to RabbitMQ. It is the first half
/// of the ids of its leases, so that a lease names its claimant without a column. It has the version of those ids, which no lease of
/// another kind has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClaimantId(u64);

/// Where the version of a UUID is in its first half, and the one for ids whose other bits their maker defines (RFC 9562).
const VERSION: u64 = 0xf000;
const CUSTOM: u64 = 0x8000;

impl ClaimantId {
    /// Generates a new id.
    pub fn generate() -> Self {
        Self(random() & !VERSION | CUSTOM)
    }

    /// Returns the id that is stored as this number.
    pub const fn from_stored(number: i64) -> Self {
        Self(number.cast_unsigned())
    }

    /// Returns the number as which the id is stored.
    pub const fn stored(self) -> i64 {
        self.0.cast_signed()
    }

    /// Returns the lowest and the highest id that a lease of this claimant can have.
    pub const fn leases(self) -> (LeaseId, LeaseId) {
        (LeaseId(Uuid::from_u64_pair(self.0, 0)), LeaseId(Uuid::from_u64_pair(self.0, u64::MAX)))
    }
}

impl LeaseId {
    /// Generates the id of a new claim of this claimant.
    pub fn of(claimant: ClaimantId) -> Self {
        Self(Uuid::from_u64_pair(claimant.0, random()))
    }
}

/// Returns the random half of a new UUID: its variant and 62 random bits.
fn random() -> u64 {
    Uuid::now_v7().as_u64_pair().1
}

typed_id! {
    /// The id of a replay request.
    ReplayId
}
typed_id! {
    /// The id of a replay, the job. The rows of deliveries keep it where they keep the id of a [`ReplayId`], and it begins with its time as that
    /// does; its version tells them apart.
    ReplayJobId, now_v8
}

/// Returns a UUIDv7 of the current time with the version of ids that their maker defines (RFC 9562).
fn now_v8() -> Uuid {
    const VERSION_BITS: u128 = 0xf << 76;
    Uuid::from_u128(Uuid::now_v7().as_u128() & !VERSION_BITS | 8 << 76)
}

impl ReplayJobId {
    /// Returns the replay that a delivery belongs to; `None` when it belongs to a request.
    pub fn of_delivery(id: ReplayId) -> Option<Self> {
        (id.0.get_version_num() == 8).then_some(Self(id.0))
    }
}

typed_id! {
    /// The id of a recorded attempt.
    AttemptId
}
typed_id! {
    /// The id of an audit entry.
    AuditEntryId
}

/// Generates the ids of a request and of its events: UUIDv7s of one millisecond, each greater than those before it.
pub fn generate_of_request(events: usize) -> (RequestId, Vec<EventId>) {
    let context = ContextV7::new();
    let (seconds, nanoseconds) = Timestamp::now(&context).to_unix();
    let next = || Uuid::new_v7(Timestamp::from_unix(&context, seconds, nanoseconds));
    let request = RequestId::new(next());
    (request, std::iter::repeat_with(|| EventId::new(next())).take(events).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_names_its_claimant_and_no_other() {
        let (claimant, other) = (ClaimantId::generate(), ClaimantId::generate());
        let (lowest, highest) = claimant.leases();
        let is_of_claimant = |lease: LeaseId| lowest <= lease && lease <= highest;
        assert!(is_of_claimant(LeaseId::of(claimant)));
        assert_ne!(LeaseId::of(claimant), LeaseId::of(claimant));
        assert!(!is_of_claimant(LeaseId::of(other)));
        assert!(!is_of_claimant(LeaseId::generate()));
        assert_eq!(LeaseId::of(claimant).uuid().get_version_num(), 8);
        assert_eq!(ClaimantId::from_stored(claimant.stored()), claimant);
    }

    #[test]
    fn the_id_of_a_replay_has_its_time_and_is_none_of_a_request() {
        let before = ReplayId::generate();
        let job = ReplayJobId::generate();
        assert!(before.uuid() < job.uuid());
        assert!(job.uuid().as_u128() >> 80 >= before.uuid().as_u128() >> 80);
        assert_eq!(ReplayJobId::of_delivery(ReplayId::new(job.uuid())), Some(job));
        assert_eq!(ReplayJobId::of_delivery(before), None);
    }

    #[test]
    fn the_ids_of_a_request_ascend_within_its_millisecond() {
        let (request, events) = generate_of_request(5_000);
        let ids: Vec<u128> = std::iter::once(request.uuid())
            .chain(events.into_iter().map(EventId::uuid))
            .map(|id| id.as_u128())
            .collect();
        assert!(ids.is_sorted_by(|one, next| one < next), "{ids:x?}");
        assert!(ids.iter().all(|id| id >> 80 == ids[0] >> 80), "{ids:x?}");
        assert_ne!(generate_of_request(1).1, generate_of_request(1).1);
    }
}
