//! The list whose filters have an index.

use sqlx::postgres::PgRow;

use super::derived::{
    Derived, is_webhook, lacks_processed_row, lacks_received_row, processed_entry, received_entry,
};
use super::{AuditEntryRow, AuditFilter, integration_of_entry, is_listed, oldest_about};
use crate::database::Database;
use crate::error::Result;
use crate::views::list_page::{ListStatements, list_page};
use crate::views::owners::bare;
use crate::views::page::{Page, PageRequest, Position};

/// Where the page of stored entries ends, derived ones need not be looked for: those behind it are on a later page. Without a full page of stored
/// entries it is the smallest id of all.
macro_rules! end_of_stored_page {
    () => {
        "COALESCE((SELECT min(s.id::text)::uuid FROM stored s HAVING count(*) >= $9 + $10),
                '00000000-0000-0000-0000-000000000000')"
    };
}

// $1 to $4 as in `is_listed`, $5 the integrations, $6 and $7 whether there are derived entries of events and of attempts.
pub(in crate::views) const LIST: ListStatements = ListStatements {
    list: concat!(
        "/* views::list_audit_entries */
        WITH stored AS MATERIALIZED (
            SELECT a.id, a.entity_type::text AS entity_type, a.entity_id, a.action, a.actor,
                COALESCE(a.details::text, '{}') AS details
            FROM audit_entries a
            WHERE ",
        is_listed!(),
        "
                AND ($5::uuid[] IS NULL OR ",
        integration_of_entry!(),
        " = ANY($5))
                AND ($8::uuid IS NULL OR a.id < $8)
            ORDER BY a.id DESC LIMIT $9::bigint + $10::bigint
        ), received AS (
            SELECT ",
        received_entry!(),
        "
            FROM events e
            WHERE $6
                AND ($1::uuid IS NULL OR e.id = $1)
                AND ($5::uuid[] IS NULL OR e.integration_id = ANY($5))
                AND ($8::uuid IS NULL OR e.id < $8)
                AND e.id > ",
        end_of_stored_page!(),
        "
                AND ",
        is_webhook!(),
        "
                AND ",
        lacks_received_row!("e.id"),
        "
            ORDER BY e.id DESC LIMIT $9 + $10
        ), processed AS (
            SELECT ",
        processed_entry!(),
        "
            FROM delivery_attempts t
            WHERE $7
                AND ($1::uuid IS NULL OR t.event_id = $1)
                AND ($5::uuid[] IS NULL OR t.integration_id = ANY($5))
                AND ($8::uuid IS NULL OR t.id < $8)
                AND t.id > ",
        end_of_stored_page!(),
        "
                AND t.succeeded
                AND ",
        lacks_processed_row!("t.id", "t.event_id", "t.destination", "t.attempt_no"),
        "
            ORDER BY t.id DESC LIMIT $9 + $10
        )
        SELECT * FROM stored UNION ALL SELECT * FROM received UNION ALL SELECT * FROM processed
        ORDER BY id DESC LIMIT $9 OFFSET $10"
    ),
    // What has a row is in `stored`, which is all there is if derived entries are counted; it is hashed once, where the list probes an index.
    // Attempts come before events, whose rows are longer: where there are many, the limit is reached without them. Of events the newest are counted
    // first: those are in memory.
    count: concat!(
        "/* views::count_audit_entries */
        WITH stored AS MATERIALIZED (
            SELECT a.entity_id, a.action, a.details
            FROM audit_entries a
            WHERE ",
        is_listed!(),
        "
                AND ($5::uuid[] IS NULL OR ",
        integration_of_entry!(),
        " = ANY($5))
            LIMIT 10001
        )
        SELECT count(*) FROM (
            SELECT FROM stored
            UNION ALL
            SELECT FROM delivery_attempts t
            WHERE $7
                AND ($1::uuid IS NULL OR t.event_id = $1)
                AND ($5::uuid[] IS NULL OR t.integration_id = ANY($5))
                AND t.succeeded
                AND (t.event_id, t.destination, t.attempt_no::text) NOT IN (
                    SELECT s.entity_id, COALESCE(s.details ->> 'destination', ''), COALESCE(s.details ->> 'attemptNo', '')
                    FROM stored s WHERE s.action = 'event.processed'
                )
            UNION ALL
            (
                SELECT FROM events e
                WHERE $6
                    AND ($1::uuid IS NULL OR e.id = $1)
                    AND ($5::uuid[] IS NULL OR e.integration_id = ANY($5))
                    AND ",
        is_webhook!(),
        "
                    AND e.id NOT IN (SELECT s.entity_id FROM stored s WHERE s.action = 'webhook.received')
                ORDER BY e.id DESC LIMIT 10001
            )
            LIMIT 10001
        ) AS counted"
    ),
    sorted_by_time: false,
};

/// Reads a page.
pub(super) async fn list(
    db: &Database,
    filter: &AuditFilter,
    request: PageRequest,
    read_row: impl Fn(&PgRow) -> Result<AuditEntryRow>,
) -> Result<Page<AuditEntryRow>> {
    let derived = Derived::of(filter);
    list_page(
        db,
        LIST,
        request,
        |statement| {
            let statement = statement.bind(filter.entity_id).bind(oldest_about(filter));
            let statement = statement.bind(filter.entity_type()).bind(filter.action.as_deref());
            statement.bind(bare(filter.visible.as_deref())).bind(derived.received).bind(derived.processed)
        },
        read_row,
        |entry| Position { key: 0, id: entry.id.uuid() },
    )
    .await
}
