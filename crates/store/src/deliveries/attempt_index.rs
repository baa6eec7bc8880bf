//! The index of attempts by integration and outcome, of which one entry stands for several attempts.
//!
//! Those that one statement records share an entry if they are of one integration and destination, have the same outcome and number, and are of events
//! of one day, whose partition has them all (see [`crate::index_entry`]). `indexed_attempts` is its number, and `indexed_event_ids` has the events of the
//! others: with the destination and the number of the one that leads, these are their primary keys.

use uuid::Uuid;

use super::record::AttemptResult;
use crate::daily_statement::day_of;
use crate::index_entry::{IndexEntry, shared_entries, slot};
use grapnel_core::delivery::state::NextState;

/// The attempts of an entry at most. Whoever wants one of them reads them all, to know their order.
const MOST_ATTEMPTS: usize = 32;

/// Returns the entry of each attempt of a batch. `ids` are those of the attempts.
pub(super) fn entries(batch: &[AttemptResult], ids: &[Uuid]) -> Vec<IndexEntry> {
    let keyed = |(result, id): (_, &Uuid)| {
        let AttemptResult { event_id, integration_id, destination, attempt_no, next, .. }: &AttemptResult =
            result;
        let event_id = event_id.uuid();
        let key = (
            (*integration_id, &**destination, *attempt_no),
            (*next == NextState::Succeeded, slot(*id), day_of(event_id)),
        );
        (key, event_id)
    };
    shared_entries(batch.iter().zip(ids).map(keyed), MOST_ATTEMPTS)
}

/// The condition on entries `l` of `integration.id` and `outcome.succeeded`: their slots are compared with those of `$first` and `$last`, as a row and by
/// nothing else, for the reason of [`crate::events::index::is_entry`].
macro_rules! is_attempt_entry {
    ($after:literal, $first:expr, $before:literal, $last:expr) => {
        concat!(
            "l.indexed_attempts > 0
                        AND (l.integration_id, l.succeeded, id_slot(l.id)) ",
            $after,
            " (integration.id, outcome.succeeded, id_slot(",
            $first,
            "))
                        AND (l.integration_id, l.succeeded, id_slot(l.id)) ",
            $before,
            " (integration.id, outcome.succeeded, id_slot(",
            $last,
            "))"
        )
    };
}
pub(crate) use is_attempt_entry;

/// The condition on those entries whose slot compares so with that of an id. Compared by columns, a walk ends where they do: of a row only the first
/// column ends it. It is for few of them, since the planner may sort what it finds.
macro_rules! is_attempt_entry_at {
    ($comparison:literal, $id:literal) => {
        concat!(
            "l.indexed_attempts > 0 AND l.integration_id = integration.id AND l.succeeded = outcome.succeeded AND id_slot(l.id) ",
            $comparison,
            " id_slot(",
            $id,
            ")"
        )
    };
}
pub(crate) use is_attempt_entry_at;

/// The attempts `a` of entries `l`, the latest first. `$is_meant` is one of the conditions on entries, and what else holds of an id `a.id`.
macro_rules! indexed_attempts {
    ($is_meant:expr, $rows:expr) => {
        concat!(
            "SELECT a.* FROM delivery_attempts l CROSS JOIN LATERAL unnest(l.event_id || l.indexed_event_ids) AS m (event_id)
                    CROSS JOIN LATERAL (
                        SELECT * FROM delivery_attempts
                        WHERE event_id = m.event_id AND destination = l.destination AND attempt_no = l.attempt_no
                        OFFSET 0
                    ) AS a
                    WHERE ",
            $is_meant,
            "
                    ORDER BY l.integration_id DESC, l.succeeded DESC, id_slot(l.id) DESC, a.id DESC LIMIT ",
            $rows
        )
    };
}
pub(crate) use indexed_attempts;

/// The condition on entries `l`, and on attempts `a` of them, of a slice: $7 the first id, $8 the end of the ids, $9 the id to go on after.
macro_rules! is_attempt_of_slice {
    () => {
        concat!(
            $crate::deliveries::is_attempt_entry!(">=", "$7", "<=", "LEAST($8, $9)"),
            " AND a.id >= $7 AND a.id < $8 AND ($9::uuid IS NULL OR a.id < $9)"
        )
    };
}
pub(crate) use is_attempt_of_slice;
