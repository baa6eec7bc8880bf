//! The total of a list with a window of time, whose other filters have an index.

use uuid::Uuid;

use super::derived::{Derived, ids_of_rows, is_webhook};
use super::{AuditFilter, is_listed, oldest_about};
use crate::views::list_page::Statement;

// $1 to $4 as in `is_listed`, $5 the first id, $6 the end of the ids, $7 and $8 the bounds of `ids_of_rows`, $9 and $10 whether there are derived
// entries of events and of attempts.
//
// The rows that can stand for something are read and hashed. Where they are more than the cap, the total is too, or it is not said: then they are
// not about what is listed, and each has to be looked at. Of the two actions that have no index there may then be none among any number of rows, so
// these are not looked for. Attempts come before events, as in the list without a window.
const COUNT: &str = concat!(
    "/* views::count_audit_entries_of_window */
    WITH beside AS MATERIALIZED (
        SELECT r.entity_id, r.action, r.details FROM audit_entries r WHERE r.id >= $7 AND r.id < $8 LIMIT 10001
    ), few AS MATERIALIZED (
        SELECT count(*) <= 10000 AS are FROM beside
    )
    SELECT CASE WHEN count(*) > 10000 OR (SELECT are FROM few) THEN count(*) END FROM (
        SELECT FROM audit_entries a
        WHERE ",
    is_listed!(),
    "
            AND a.id >= $5 AND a.id < $6
            AND ($4::text IS NULL OR $4 NOT IN ('webhook.received', 'event.processed') OR (SELECT are FROM few))
        UNION ALL
        SELECT FROM delivery_attempts t
        WHERE $10 AND (SELECT are FROM few)
            AND ($1::uuid IS NULL OR t.event_id = $1)
            AND t.id >= $5 AND t.id < $6
            AND t.succeeded
            AND (t.event_id, t.destination, t.attempt_no::text) NOT IN (
                SELECT r.entity_id, COALESCE(r.details ->> 'destination', ''), COALESCE(r.details ->> 'attemptNo', '')
                FROM beside r WHERE r.action = 'event.processed'
            )
        UNION ALL
        SELECT FROM events e
        WHERE $9 AND (SELECT are FROM few)
            AND ($1::uuid IS NULL OR e.id = $1)
            AND e.id >= $5 AND e.id < $6
            AND ",
    is_webhook!(),
    "
            AND e.id NOT IN (SELECT r.entity_id FROM beside r WHERE r.action = 'webhook.received')
        LIMIT 10001
    ) AS counted"
);

/// Makes the statement for the entries from the first to the end of the ids. It says nothing where the rows do not say the total.
pub(super) fn statement(filter: &AuditFilter, derived: Derived, first: Uuid, end: Uuid) -> Statement<'_> {
    let (first_row, end_of_rows) = ids_of_rows(first, end);
    sqlx::query(COUNT)
        .bind(filter.entity_id)
        .bind(oldest_about(filter))
        .bind(filter.entity_type())
        .bind(filter.action.as_deref())
        .bind(first)
        .bind(end)
        .bind(first_row)
        .bind(end_of_rows)
        .bind(derived.received)
        .bind(derived.processed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::TOTAL_CAP;

    #[test]
    fn counts_stop_at_one_more_than_the_cap() {
        assert_eq!(COUNT.matches(&format!("LIMIT {}", TOTAL_CAP + 1)).count(), 2);
        assert_eq!(COUNT.matches(&format!(" {TOTAL_CAP} ")).count(), 2);
    }
}
