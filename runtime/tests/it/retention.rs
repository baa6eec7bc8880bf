//! The partitions of a day are created ahead of it, and dropped as a whole.

use grapnel_store::partitions;
use grapnel_testing::TestDatabase;

use super::harness::{Platform, acme_integration, destination, integration};

const OLD_DAYS: [i32; 3] = [40, 39, 20];

/// Inserts one event with a delivery, a key and an audit entry at noon of each old day.
async fn fill_old_days(database: &TestDatabase) {
    database.execute("SELECT ensure_partitions(current_date - 40, current_date)").await;
    for days_ago in OLD_DAYS {
        let insert = format!(
            "WITH event AS (
                INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id,
                    headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
                SELECT uuidv7_floor((current_date - {days_ago}) + interval '12 hours'), id, 'acme', 'old', now(), now(), '',
                    '[]', '{{}}', 'data', 0, 2, '{days_ago}'
                FROM integrations RETURNING id, integration_id
            ), delivery AS (
                INSERT INTO deliveries (event_id, destination, integration_id, status, finished_at, updated_at)
                SELECT id, 'orders', integration_id, 'succeeded', now(), now() FROM event
            ), key AS (
                INSERT INTO idempotency_keys SELECT gen_random_uuid(), id FROM event
            )
            INSERT INTO audit_entries (id, entity_type, entity_id, action, actor)
            SELECT id, 'event', id, 'webhook.received', 'test' FROM event"
        );
        database.execute(&insert).await;
    }
}

async fn platform_with_retention(days: i32) -> Platform {
    let platform = Platform::new().await;
    let retention = format!("  retention: {{days: {days}}}\n");
    platform.apply(&integration("acme", &retention, &[destination("orders", "http://127.0.0.1:9/")])).await;
    fill_old_days(&platform.database).await;
    platform
}

#[tokio::test]
async fn days_past_the_retention_are_dropped_with_all_of_their_rows() {
    let platform = platform_with_retention(30).await;
    let dropped = partitions::drop_expired(&platform.db).await.unwrap();
    // Each day before the retention, from the oldest one, in each table.
    assert_eq!(dropped.len(), 10 * 5, "{dropped:?}");
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 1);
    assert_eq!(platform.count("SELECT count(*) FROM deliveries").await, 1);
    assert_eq!(
        platform.count("SELECT count(*) FROM audit_entries WHERE action = 'webhook.received'").await,
        1
    );
    assert_eq!(partitions::prune_keys(&platform.db).await.unwrap(), 2);
    assert_eq!(platform.count("SELECT count(*) FROM idempotency_keys").await, 1);
    assert!(partitions::drop_expired(&platform.db).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_day_with_unfinished_deliveries_is_kept_until_they_end() {
    let platform = platform_with_retention(30).await;
    let unfinish = "UPDATE deliveries SET status = 'pending', finished_at = NULL
        WHERE event_id = (SELECT event_id FROM deliveries ORDER BY event_id LIMIT 1)";
    platform.database.execute(unfinish).await;
    let dropped = partitions::drop_expired(&platform.db).await.unwrap();
    assert_eq!(dropped.len(), 9 * 5, "{dropped:?}");
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 2);

    platform
        .database
        .execute("UPDATE deliveries SET status = 'failed', finished_at = now(), last_error = 'gone'")
        .await;
    assert_eq!(partitions::drop_expired(&platform.db).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_retired_integration_keeps_its_history_as_long_as_it_asked() {
    let platform = platform_with_retention(60).await;
    platform.database.execute("UPDATE integrations SET deleted_at = now()").await;
    assert!(partitions::drop_expired(&platform.db).await.unwrap().is_empty());
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 3);
}

#[tokio::test]
async fn partitions_are_created_ahead_by_a_migration_and_by_every_api() {
    let platform = Platform::new().await;
    let ahead = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    assert_eq!(platform.count(ahead).await, 16);
    let last = "DO $$ BEGIN EXECUTE 'DROP TABLE events_' || to_char(now() AT TIME ZONE 'UTC' + interval '14 days', 'YYYYMMDD'); END $$";
    platform.database.execute(last).await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    platform.wait_for_count(ahead, 16).await;
}
