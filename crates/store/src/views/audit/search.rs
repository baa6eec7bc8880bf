//! The list with a filter that has no index, or with a window of time: walked (see [`crate::views::walk`]).

use sqlx::postgres::PgRow;

use super::derived::{Derived, ids_of_rows, is_near, is_webhook, processed_entry, received_entry};
use super::{AuditEntryRow, AuditFilter, count, integration_of_entry, is_listed, oldest_about};
use crate::database::Database;
use crate::deliveries::{indexed_attempts, is_attempt_of_slice};
use crate::error::Result;
use crate::events::index::indexed_ids;
use crate::views::id_time::id_window;
use crate::views::page::{Page, PageRequest};
use crate::views::snapshot::Snapshot;
use crate::views::walk::{Slice, WalkedPage, walk_to_page};

/// Whether a row `r` can stand for something in the slice.
macro_rules! is_beside_slice {
    () => {
        concat!(
            is_near!(
                "(SELECT s.id FROM slice s ORDER BY s.id LIMIT 1)",
                "(SELECT s.id FROM slice s ORDER BY s.id DESC LIMIT 1)"
            ),
            " AND r.id >= $13 AND r.id < $14"
        )
    };
}

/// A slice of stored entries, events and attempts, in one order. `$1` to `$4` as in `is_listed`: what has an index is in the source, and `$5` the actor
/// and `$6` the integrations are tested. `$7` the first id, `$8` the end of the ids, `$9` the id to go on after, `$10` the rows, `$11` and `$12` whether
/// there are derived entries of events and of attempts, `$13` and `$14` the bounds of [`ids_of_rows`], which prune partitions when it is planned.
///
/// The rows that stand for what the slice derives are among those about its events: a range of an index, which is nearly empty unless much fails. Only
/// where it has as many rows as the slice is each event looked up by itself; `OFFSET 0` has that done by the index.
macro_rules! search_statement {
    ($name:literal, $events:expr, $attempts:expr) => {
        concat!(
            "/* views::",
            $name,
            " */
    WITH slice AS MATERIALIZED (
        (
            SELECT 'stored'::text AS source, a.id, a.entity_type, a.entity_id, a.actor, NULL::uuid AS integration_id,
                true AS is_entry, NULL::text AS destination, NULL::int AS attempt_no
            FROM audit_entries a
            WHERE ",
            is_listed!(),
            "
                AND a.id >= $7 AND a.id < $8 AND ($9::uuid IS NULL OR a.id < $9)
            ORDER BY a.id DESC LIMIT $10
        ) UNION ALL (
            SELECT 'event'::text, e.id, 'event'::audit_entity, e.id, 'provider:' || e.provider, e.integration_id,
                ",
            is_webhook!(),
            ", NULL::text, NULL::int
            FROM ",
            $events,
            "
            ORDER BY e.id DESC LIMIT $10
        ) UNION ALL (
            SELECT 'attempt'::text, t.id, 'event'::audit_entity, t.event_id, 'worker'::text, t.integration_id,
                true, t.destination, t.attempt_no
            FROM ",
            $attempts,
            "
            ORDER BY t.id DESC LIMIT $10
        )
        ORDER BY id DESC LIMIT $10
    ), around AS MATERIALIZED (
        SELECT r.entity_id, r.action, r.details FROM audit_entries r
        WHERE r.entity_id >= (SELECT s.entity_id FROM slice s WHERE s.source <> 'stored' ORDER BY s.entity_id LIMIT 1)
            AND r.entity_id <= (SELECT s.entity_id FROM slice s WHERE s.source <> 'stored' ORDER BY s.entity_id DESC LIMIT 1)
            AND ",
            is_beside_slice!(),
            "
        ORDER BY r.entity_id, r.id LIMIT $10
    ), standing AS MATERIALIZED (
        SELECT r.* FROM around r
        WHERE r.action IN ('webhook.received', 'event.processed') AND (SELECT count(*) FROM around) < $10
        UNION ALL
        SELECT r.* FROM (SELECT DISTINCT s.entity_id AS id FROM slice s WHERE s.source <> 'stored') AS event
        CROSS JOIN LATERAL (
            SELECT r.entity_id, r.action, r.details FROM audit_entries r
            WHERE r.entity_id = event.id AND r.action IN ('webhook.received', 'event.processed')
                AND ",
            is_beside_slice!(),
            "
            OFFSET 0
        ) AS r
        WHERE (SELECT count(*) FROM around) >= $10
    )
    SELECT count(*) AS scanned, (SELECT s.id FROM slice s ORDER BY s.id LIMIT 1) AS last,
        array_agg(id) FILTER (WHERE passes) AS ids
    FROM (
        SELECT a.id, (
            a.is_entry
            AND ($5::text IS NULL OR a.actor = $5)
            AND ($6::uuid[] IS NULL OR (CASE a.source WHEN 'stored' THEN ",
            integration_of_entry!(),
            " ELSE a.integration_id END) = ANY($6))
            AND CASE a.source
                WHEN 'event' THEN a.id NOT IN (SELECT r.entity_id FROM standing r WHERE r.action = 'webhook.received')
                WHEN 'attempt' THEN (a.entity_id, a.destination, a.attempt_no::text) NOT IN (
                    SELECT r.entity_id, COALESCE(r.details ->> 'destination', ''), COALESCE(r.details ->> 'attemptNo', '')
                    FROM standing r WHERE r.action = 'event.processed'
                )
                ELSE true END
        ) AS passes
        FROM slice AS a
    ) AS tested"
        )
    };
}

const SEARCH: &str = search_statement!(
    "search_audit_entries",
    "events e
            WHERE $11 AND ($1::uuid IS NULL OR e.id = $1)
                AND e.id >= $7 AND e.id < $8 AND ($9::uuid IS NULL OR e.id < $9)",
    "delivery_attempts t
            WHERE $12 AND ($1::uuid IS NULL OR t.event_id = $1) AND t.succeeded
                AND t.id >= $7 AND t.id < $8 AND ($9::uuid IS NULL OR t.id < $9)"
);

// Of the events and attempts only those of the integrations are read, along the indexes events_integration and delivery_attempts_shared (see [`Slice`]).
const SEARCH_INTEGRATIONS: &str = search_statement!(
    "search_audit_entries_of_integrations",
    concat!(
        "unnest($6::uuid[]) AS integration (id) CROSS JOIN LATERAL (
                ",
        indexed_ids!(
            "l.integration_id",
            "integration.id",
            "l.integration_id DESC",
            "$7",
            "LEAST($8, $9)",
            "m.id >= $7 AND m.id < $8 AND ($9::uuid IS NULL OR m.id < $9)",
            "DESC",
            "$10"
        ),
        "
            ) AS found CROSS JOIN LATERAL (
                SELECT e.id, e.provider, e.integration_id, e.idempotency_key FROM events e WHERE e.id = found.id OFFSET 0
            ) AS e
            WHERE $11"
    ),
    concat!(
        "unnest($6::uuid[]) AS integration (id) CROSS JOIN (VALUES (true)) AS outcome (succeeded) CROSS JOIN LATERAL (
                ",
        indexed_attempts!(is_attempt_of_slice!(), "$10"),
        "
            ) AS t
            WHERE $12"
    )
);

// $1 the ids, $2 and $3 whether there are derived entries of events and of attempts.
const LOAD: &str = concat!(
    "/* views::load_audit_entries */
    SELECT a.id, a.entity_type::text AS entity_type, a.entity_id, a.action, a.actor,
        COALESCE(a.details::text, '{}') AS details
    FROM audit_entries a WHERE a.id = ANY($1)
    UNION ALL
    SELECT ",
    received_entry!(),
    "
    FROM events e WHERE $2 AND e.id = ANY($1)
    UNION ALL
    SELECT ",
    processed_entry!(),
    "
    FROM delivery_attempts t WHERE $3 AND t.id = ANY($1) AND t.succeeded
    ORDER BY id DESC"
);

/// Reads a page.
pub(super) async fn search(
    db: &Database,
    filter: &AuditFilter,
    request: PageRequest,
    read_row: impl Fn(&PgRow) -> Result<AuditEntryRow>,
) -> Result<Page<AuditEntryRow>> {
    let scope = filter.integrations.resolve(db).await?.within(filter.visible.as_deref());
    if scope.is_nothing() {
        return Ok(WalkedPage::empty().page(request, Vec::new(), |entry: &AuditEntryRow| entry.id.uuid()));
    }
    let is_of_integrations = scope.is_narrow() && filter.entity_id.is_none();
    let text = if is_of_integrations { SEARCH_INTEGRATIONS } else { SEARCH };
    let derived = Derived::of(filter);
    let (oldest, (first, end)) = (oldest_about(filter), id_window(filter.from, filter.until));
    let slice = |slice: Slice| {
        let (first_row, end_of_rows) = ids_of_rows(first, slice.after.map_or(end, |after| after.min(end)));
        sqlx::query(text)
            .bind(filter.entity_id)
            .bind(oldest)
            .bind(filter.entity_type())
            .bind(filter.action.as_deref())
            .bind(filter.actor.as_deref())
            .bind(scope.ids())
            .bind(first)
            .bind(end)
            .bind(slice.after)
            .bind(slice.rows)
            .bind(derived.received)
            .bind(derived.processed)
            .bind(first_row)
            .bind(end_of_rows)
    };
    let is_of_index = filter.actor.is_none() && scope.is_any();
    let count = is_of_index.then(|| count::statement(filter, derived, first, end));
    let found = walk_to_page(db, request, true, slice, count).await?;
    let entries = db
        .bounded(async {
            let mut snapshot = Snapshot::take(db).await?;
            let load = sqlx::query(LOAD).bind(&found.ids).bind(derived.received).bind(derived.processed);
            let rows = load.fetch_all(snapshot.connection()).await?;
            snapshot.release().await?;
            rows.iter().map(read_row).collect::<Result<Vec<_>>>()
        })
        .await?;
    Ok(found.page(request, entries, |entry| entry.id.uuid()))
}
