//! The indexes of events by integration and by type, of which one entry stands for several events.
//!
//! Those of a batch that are of one integration, one type and one slot of time share an entry (see [`crate::index_entry`]): `indexed_events` is its
//! number, and `indexed_ids` has the others. No slot is in two days, so an entry is in the partition of all that it stands for.

use super::NewEvent;
use crate::index_entry::{IndexEntry, shared_entries, slot};

/// The events of an entry at most. Its ids are in the row of the event that leads, which is not to be compressed for them, and is to fit into a page
/// with as many others as before: six events of 1 KB.
const MOST_EVENTS: usize = 10;

/// Returns the entry of each event of a batch.
pub(crate) fn entries(batch: &[NewEvent]) -> Vec<IndexEntry> {
    let keyed = |event| {
        let NewEvent { id, integration_id, event_type, .. }: &NewEvent = event;
        ((*integration_id, &**event_type, slot(id.uuid())), id.uuid())
    };
    shared_entries(batch.iter().map(keyed), MOST_EVENTS)
}

/// The condition on entries `l` along an index that begins with the columns of `$key`: their slots are compared with those of `$first` and `$last`. What
/// begins with an integration is compared as a row, and by nothing else, which is for the planner: from its statistics of a young partition it would
/// take a few events to be all that an integration has, and would sort them rather than read them in order. The bounds of the id are for the partitions.
macro_rules! is_entry {
    ($key:expr, $of:expr, $after:literal, $first:expr, $before:literal, $last:expr) => {
        concat!(
            "l.indexed_events > 0 AND l.id >= first_of_slot(",
            $first,
            ") AND l.id <= last_of_slot(",
            $last,
            ")
                        AND (",
            $key,
            ", id_slot(l.id)) ",
            $after,
            " (",
            $of,
            ", id_slot(",
            $first,
            ")) AND (",
            $key,
            ", id_slot(l.id)) ",
            $before,
            " (",
            $of,
            ", id_slot(",
            $last,
            "))"
        )
    };
}
pub(crate) use is_entry;

/// The ids of the events of one integration, or of one type of it, in order: `$key` and `$of` are the columns of the index before the slot and their
/// values, `$sorted` the same columns as they are sorted. `$first` to `$last` are bounds for slots, and `$within` is the condition on an id `m.id`.
macro_rules! indexed_ids {
    ($key:expr, $of:expr, $sorted:expr, $first:expr, $last:expr, $within:expr, $order:expr, $rows:expr) => {
        concat!(
            "SELECT m.id FROM events l CROSS JOIN LATERAL unnest(l.id || l.indexed_ids) AS m (id)
                    WHERE ",
            crate::events::index::is_entry!($key, $of, ">=", $first, "<=", $last),
            "
                        AND ",
            $within,
            "
                    ORDER BY ",
            $sorted,
            ", id_slot(l.id) ",
            $order,
            ", m.id ",
            $order,
            " LIMIT ",
            $rows
        )
    };
}
pub(crate) use indexed_ids;

/// The idempotency key of an event, whose row is given. That which the provider's id is in is not stored: the row has its parts.
macro_rules! idempotency_key {
    ($event:literal) => {
        concat!(
            "CASE WHEN ",
            $event,
            ".idempotency_key = '' THEN ",
            $event,
            ".integration_id || ':' || ",
            $event,
            ".external_event_id ELSE ",
            $event,
            ".idempotency_key END"
        )
    };
}
pub(crate) use idempotency_key;

/// The hash of an idempotency key, as `events::store` gets it: the first 16 bytes of the SHA-256.
macro_rules! key_hash {
    ($key:literal) => {
        concat!("encode(substring(sha256(convert_to(", $key, ", 'UTF8')) FOR 16), 'hex')::uuid")
    };
}
pub(crate) use key_hash;
