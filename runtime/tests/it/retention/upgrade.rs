//! A process of before on the schema of now, a schema that was upgraded, and one that is being upgraded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use grapnel_crds::names::integration_id;
use grapnel_testing::{acme_event, wait_until};
use tokio::time::interval;

use super::{LONGEST, drop_expired, platform_with_retention};
use crate::harness::tally::Tally;
use crate::harness::{Platform, acme_integration, destination};

const OF_EVENTS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";

#[tokio::test]
async fn the_functions_of_before_work_and_wait_for_nobody() {
    let platform = platform_with_retention(30).await;
    let before = platform.count(OF_EVENTS).await;
    let mut reader = platform.database.begin().await;
    reader.execute("LOCK TABLE events, deliveries IN ACCESS SHARE MODE").await;
    let created = "SELECT ensure_partitions(current_date + 15, current_date + 16)::bigint";
    assert_eq!(platform.count(created).await, 12);
    assert_eq!(platform.count(OF_EVENTS).await, before + 2);
    let dropped = "SELECT cardinality(drop_expired_partitions(current_date - 30))::bigint";
    assert_eq!(platform.count(dropped).await, 0);
    reader.rollback().await;
    // The day that another process is dropping is left to it.
    platform.database.execute("INSERT INTO expired_days SELECT current_date - 40").await;
    assert_eq!(platform.count(dropped).await, 9 * 6);
    assert_eq!(drop_expired(&platform, LONGEST).await.dropped.len(), 6);
}

#[tokio::test]
async fn the_indexes_by_which_keys_were_pruned_before_are_dropped_in_the_background() {
    let platform = platform_with_retention(30).await;
    assert_eq!(platform.count(INDEXES_OF_KEYS).await, 1, "a new installation has that of the keys alone");
    platform
        .database
        .execute(
            "CREATE INDEX idempotency_keys_event_id ON idempotency_keys (event_id);
            CREATE INDEX idempotency_keys_event ON idempotency_keys USING brin (event_id)",
        )
        .await;
    assert_eq!(drop_expired(&platform, LONGEST).await.pruned_keys, 2);
    // It leaves them while another test has a long transaction.
    wait_until("the indexes to be dropped", async || {
        drop_expired(&platform, LONGEST).await;
        platform.count(INDEXES_OF_KEYS).await == 1
    })
    .await;
}

const INDEXES_OF_KEYS: &str = "SELECT count(*) FROM pg_index WHERE indrelid = 'idempotency_keys'::regclass";

#[tokio::test]
async fn days_of_before_get_the_index_of_what_is_held_in_the_background() {
    let platform = platform_with_retention(30).await;
    // As the upgrade leaves it for the days that are written.
    platform
        .database
        .execute(
            "DROP INDEX deliveries_held;
            CREATE INDEX deliveries_held ON ONLY deliveries (integration_id, destination, event_id)
                WHERE due_at = '9999-01-01 00:00:00+00'::timestamptz",
        )
        .await;
    assert_eq!(platform.count(HELD_INDEX).await, 0);
    let round = drop_expired(&platform, LONGEST).await;
    assert!(!round.is_incomplete, "{round:?}");
    assert_eq!(platform.count(HELD_INDEX).await, 1);
}

#[tokio::test]
async fn the_index_of_attempts_of_before_is_dropped_when_every_day_has_the_one_in_its_place() {
    let platform = platform_with_retention(30).await;
    assert_eq!(platform.count(ATTEMPT_INDEXES).await, 1, "a new installation has one alone");
    platform
        .database
        .execute(
            "DROP INDEX delivery_attempts_shared;
            CREATE INDEX delivery_attempts_shared ON ONLY delivery_attempts (integration_id, succeeded, id_slot(id))
                INCLUDE (id, indexed_attempts) WHERE indexed_attempts > 0;
            CREATE INDEX delivery_attempts_integration ON delivery_attempts (integration_id, succeeded, id)",
        )
        .await;
    wait_until("the index to be replaced", async || {
        drop_expired(&platform, LONGEST).await;
        let valid = platform.count(&format!("{ATTEMPT_INDEXES} AND indisvalid")).await;
        valid == 1 && platform.count(ATTEMPT_INDEXES).await == 1
    })
    .await;
}

/// The indexes of attempts by integration.
const ATTEMPT_INDEXES: &str = "SELECT count(*) FROM pg_index
    WHERE indexrelid IN (to_regclass('delivery_attempts_integration'), to_regclass('delivery_attempts_shared'))";

/// 1 when every partition has the index: that of the whole table is valid then.
const HELD_INDEX: &str =
    "SELECT count(*) FROM pg_index WHERE indexrelid = 'deliveries_held'::regclass AND indisvalid";

/// The last migration of the release that the upgrade begins with.
const BEFORE: i64 = 3;

/// The time between two statements of the processes of before.
const PACE: Duration = Duration::from_millis(20);

/// Waits for a lock on a table that last longer than a second, of whoever uses this database.
const LONG_WAITS: &str = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE datname = current_database() AND locktype = 'relation' AND NOT granted
        AND waitstart < clock_timestamp() - interval '1 second'";

/// The attempts that the index by integration has, whichever version recorded them.
const ATTEMPTS_FOUND: &str = "SELECT sum(indexed_attempts) FROM delivery_attempts WHERE indexed_attempts > 0";

/// Returns the statement by which the release before stores events, so many days ahead.
fn store_before(events: usize, days: u8) -> String {
    let integration = integration_id(None, "test", "acme");
    format!(
        r#"WITH input AS MATERIALIZED (
            SELECT overlay(uuidv7_now()::text PLACING left(uuidv7_floor(now() + interval '{days} days')::text, 13) FROM 1)::uuid
                AS id
            FROM generate_series(1, {events})
        ), fresh AS (
            INSERT INTO idempotency_keys (key_hash, event_id) SELECT gen_random_uuid(), id FROM input
            ON CONFLICT DO NOTHING RETURNING event_id
        ), stored AS (
            INSERT INTO events (
                id, integration_id, provider, external_event_id, event_type, subject, occurred_at, received_at,
                correlation_id, traceparent, source_ip, headers, raw_body, payload_key, payload_start, payload_length,
                body_form, delivered_as, secret_index, idempotency_key
            )
            SELECT id, '{integration}', 'acme', id::text, 'order.created', NULL, now(), now(), 'test', NULL, '127.0.0.1', '[]',
                convert_to('{{"data":{{}}}}', 'UTF8'), 'data', 8, 2, 0, 0, 0, id::text
            FROM input WHERE id IN (SELECT event_id FROM fresh)
        ), queued AS (
            INSERT INTO deliveries (event_id, destination, integration_id, queued_at, due_at, updated_at)
            SELECT id, 'orders', '{integration}', now(), NULL, now() FROM input
        )
        INSERT INTO audit_entries (id, entity_type, entity_id, action, actor, details)
        SELECT uuidv7_now(), 'event', id, 'webhook.received', 'provider:acme', NULL FROM input"#
    )
}

/// The statement by which the release before records that deliveries succeeded.
const RECORD_BEFORE: &str = "WITH sent AS MATERIALIZED (
        SELECT event_id, destination FROM deliveries WHERE queued_at IS NOT NULL AND lease_id IS NULL AND finished_at IS NULL
        ORDER BY event_id LIMIT 2 FOR UPDATE SKIP LOCKED
    ), updated AS (
        UPDATE deliveries d SET attempts = attempts + 1, status = 'succeeded', finished_at = now(), queued_at = NULL, updated_at = now()
        FROM sent WHERE d.event_id = sent.event_id AND d.destination = sent.destination
        RETURNING d.event_id, d.integration_id, d.destination, d.attempts
    )
    INSERT INTO delivery_attempts (id, event_id, integration_id, destination, attempt_no, succeeded, http_status, response_body,
        error_message, duration_ms, triggered_by, scheduled_at, started_at)
    SELECT uuidv7_now(), event_id, integration_id, destination, attempts, true, 200, NULL, NULL, 1, 'webhook', now(), now()
    FROM updated";

/// Processes of before store and record while the schema is upgraded, and beside processes of now. None of their statements
/// fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_after_an_upgrade_under_load_and_nobody_waits_long_for_a_lock() {
    const POSTED: u64 = 50;
    let platform = Platform::unmigrated().await;
    let receiver = Tally::new(Duration::ZERO, |_| StatusCode::OK).await;
    let database = &platform.database;
    database.migrate_to(BEFORE).await;
    // Partitions of before. Those of the following days are made by the upgrade.
    database.execute("SELECT ensure_partitions(current_date - 1, current_date + 1)").await;
    let first = database.execute(&store_before(2_000, 0)).await;
    let (is_upgraded, is_over) = (AtomicBool::new(false), AtomicBool::new(false));

    let store = async {
        let (mut ticks, mut stored) = (interval(PACE), first);
        while !is_over.load(Ordering::Relaxed) {
            ticks.tick().await;
            stored += database.execute(&store_before(4, 0)).await;
            if is_upgraded.load(Ordering::Relaxed) {
                stored += database.execute(&store_before(1, 5)).await;
            }
        }
        stored
    };
    let record = async {
        let (mut ticks, mut recorded) = (interval(PACE), 0);
        while !is_over.load(Ordering::Relaxed) {
            ticks.tick().await;
            recorded += database.execute(RECORD_BEFORE).await;
        }
        recorded
    };
    let watch = async {
        let (mut ticks, mut long_waits) = (interval(PACE), 0);
        while !is_over.load(Ordering::Relaxed) {
            ticks.tick().await;
            long_waits += database.count(LONG_WAITS).await;
        }
        long_waits
    };
    let upgrade = async {
        platform.run(&["migrate"]).await;
        is_upgraded.store(true, Ordering::Relaxed);
        let processes =
            platform.start_api_and_worker(&acme_integration(&[destination("orders", &receiver.url())])).await;
        for number in 0..POSTED {
            assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
        }
        // Dropped and built in the background.
        platform.wait_for_count(INDEXES_OF_KEYS, 1).await;
        platform.wait_for_count(HELD_INDEX, 1).await;
        platform.wait_for_count(ATTEMPT_INDEXES, 1).await;
        is_over.store(true, Ordering::Relaxed);
        processes
    };
    let (stored, recorded, long_waits, _processes) = tokio::join!(store, record, watch, upgrade);
    assert_eq!(long_waits, 0);
    let succeeded = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";
    platform.wait_for_count(succeeded, (stored + POSTED).cast_signed()).await;
    assert_eq!(
        receiver.counts().len() as u64,
        stored + POSTED - recorded,
        "each that was not recorded before"
    );
    let found = database.count(ATTEMPTS_FOUND).await;
    assert_eq!(found.cast_unsigned(), stored + POSTED, "each attempt is found through the index");
    let ahead = "SELECT count(*) FROM events WHERE id >= uuidv7_floor(current_date + 2)";
    assert!(database.count(ahead).await > 0, "some are in a partition of now");
}
