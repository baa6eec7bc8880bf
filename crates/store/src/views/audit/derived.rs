//! Entries that are not stored. That a webhook was received is known from its event, and that an event was delivered from the attempt that
//! succeeded, so the entries `webhook.received` and `event.processed` are made of these when they are read. Such an entry has the id of the
//! event or of the attempt, so it never changes, and it leaves with the day of the event.
//!
//! *A stored row wins.* Versions before this one stored a row for each, and a webhook that something has to be said of, such as a field that was
//! left out, still gets one. What has a row has no derived entry, whichever process wrote the row, and when: no day has to be known from which on
//! there are none, so processes of both versions may run side by side, in an upgrade or after a rollback.
//!
//! *A page is read at the same cost, however many have a row.* A row was written moments after the event or the attempt had its id, and it passes
//! the same filters. So in the order of the list, what has a row is next to its row, and a list need look no further than its stored page does.

use uuid::Uuid;

use super::{AuditEntity, AuditFilter};
use crate::views::id_time::moved;

/// The derived entries that a list can have. Where it has none, neither events nor attempts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Derived {
    /// `webhook.received`
    pub(super) received: bool,
    /// `event.processed`
    pub(super) processed: bool,
}

impl Derived {
    /// Those that can pass a filter.
    pub(super) fn of(filter: &AuditFilter) -> Self {
        let may_be = |action: &str, may_act: fn(&str) -> bool| {
            filter.entity_type.is_none_or(|entity_type| entity_type == AuditEntity::Event)
                && filter.action.as_deref().is_none_or(|wanted| wanted == action)
                && filter.actor.as_deref().is_none_or(may_act)
        };
        Self {
            received: may_be("webhook.received", |actor| actor.starts_with("provider:")),
            processed: may_be("event.processed", |actor| actor == "worker"),
        }
    }
}

/// The columns of an entry, derived from an event `e`.
macro_rules! received_entry {
    () => {
        "e.id, 'event'::text AS entity_type, e.id AS entity_id, 'webhook.received'::text AS action,
            'provider:' || e.provider AS actor, '{}'::text AS details"
    };
}
pub(super) use received_entry;

/// The columns of an entry, derived from an attempt `t`.
macro_rules! processed_entry {
    () => {
        "t.id, 'event'::text AS entity_type, t.event_id AS entity_id, 'event.processed'::text AS action,
            'worker'::text AS actor,
            json_build_object('destination', t.destination, 'attemptNo', t.attempt_no)::text AS details"
    };
}
pub(super) use processed_entry;

/// Whether an event `e` came as a webhook. The key of a test event has 78 characters; other lengths spare making it.
macro_rules! is_webhook {
    () => {
        concat!(
            "(octet_length(e.idempotency_key) <> 78 OR e.idempotency_key <> ",
            $crate::test_events::key_of_test_event!("e.integration_id", "e.id"),
            ")"
        )
    };
}
pub(super) use is_webhook;

/// The smallest id of a time so far from that of an id, in units of its first eight digits (about 66 seconds). It is evaluated for every probe and
/// partition, and costs a fifth of `uuidv7_floor(uuidv7_time(…) + …)`.
macro_rules! id_beside {
    ($id:literal, $distance:literal) => {
        concat!(
            "(lpad(to_hex(('x' || left(",
            $id,
            "::text, 8))::bit(32)::bigint ",
            $distance,
            "), 8, '0') || '-0000-0000-0000-000000000000')::uuid"
        )
    };
}
pub(super) use id_beside;

/// The bounds of the id of a row `r`, when it is about what had an id from the first to the last: written after it, but for an hour in which clocks may
/// differ, and within a day. They only keep the partitions of other days from being looked into.
macro_rules! is_near {
    ($first:literal, $last:literal) => {
        concat!(
            "r.id >= ",
            $crate::views::audit::derived::id_beside!($first, "- 55"),
            " AND r.id < ",
            $crate::views::audit::derived::id_beside!($last, "+ 1319")
        )
    };
}
pub(super) use is_near;

/// Returns the first id, and the end of the ids, of the rows that can stand for what has an id in a window: a little more than [`is_near`] has.
pub(super) fn ids_of_rows(first: Uuid, end: Uuid) -> (Uuid, Uuid) {
    const HOUR: i64 = 60 * 60 * 1000;
    (moved(first, -2 * HOUR), moved(end, 25 * HOUR))
}

/// Whether the receipt of an event with this id has no row. A scalar subquery, so that it is a probe of an index and never a join of whole tables.
macro_rules! lacks_received_row {
    ($event:literal) => {
        concat!(
            "(SELECT true FROM audit_entries r
                WHERE r.entity_id = ",
            $event,
            " AND r.action = 'webhook.received'
                    AND ",
            $crate::views::audit::derived::is_near!($event, $event),
            "
                LIMIT 1) IS NULL"
        )
    };
}
pub(super) use lacks_received_row;

/// Whether the success of an attempt has no row: its id, event, destination and number.
macro_rules! lacks_processed_row {
    ($id:literal, $event:literal, $destination:literal, $attempt_no:literal) => {
        concat!(
            "(SELECT true FROM audit_entries r
                WHERE r.entity_id = ",
            $event,
            " AND r.action = 'event.processed'
                    AND r.details ->> 'destination' = ",
            $destination,
            " AND r.details ->> 'attemptNo' = ",
            $attempt_no,
            "::text
                    AND ",
            $crate::views::audit::derived::is_near!($id, $id),
            "
                LIMIT 1) IS NULL"
        )
    };
}
pub(super) use lacks_processed_row;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_can_have_no_derived_entry_reads_none() {
        let derived = |entity_type: Option<AuditEntity>, action: Option<&str>, actor: Option<&str>| {
            let (action, actor) = (action.map(str::to_owned), actor.map(str::to_owned));
            let derived = Derived::of(&AuditFilter { entity_type, action, actor, ..AuditFilter::default() });
            (derived.received, derived.processed)
        };
        assert_eq!(derived(None, None, None), (true, true));
        assert_eq!(derived(Some(AuditEntity::Event), None, None), (true, true));
        assert_eq!(derived(Some(AuditEntity::Integration), None, None), (false, false));
        assert_eq!(derived(None, Some("webhook.received"), None), (true, false));
        assert_eq!(derived(None, Some("event.processed"), None), (false, true));
        assert_eq!(derived(None, Some("event.failed"), None), (false, false));
        assert_eq!(derived(None, None, Some("provider:acme")), (true, false));
        assert_eq!(derived(None, None, Some("worker")), (false, true));
        assert_eq!(derived(None, None, Some("user:jane")), (false, false));
        assert_eq!(derived(None, Some("webhook.received"), Some("worker")), (false, false));
    }
}
