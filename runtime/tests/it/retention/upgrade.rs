//! A process of before on the schema of now, and a schema that was upgraded.

use super::{LONGEST, drop_expired, platform_with_retention};

const OF_EVENTS: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";

#[tokio::test]
async fn the_functions_of_before_work_and_wait_for_nobody() {
    let platform = platform_with_retention(30).await;
    let before = platform.count(OF_EVENTS).await;
    let mut reader = platform.database.begin().await;
    reader.execute("LOCK TABLE events, deliveries IN ACCESS SHARE MODE").await;
    let created = "SELECT ensure_partitions(current_date + 15, current_date + 16)::bigint";
    assert_eq!(platform.count(created).await, 10);
    assert_eq!(platform.count(OF_EVENTS).await, before + 2);
    let dropped = "SELECT cardinality(drop_expired_partitions(current_date - 30))::bigint";
    assert_eq!(platform.count(dropped).await, 0);
    reader.rollback().await;
    // The day that another process is dropping is left to it.
    platform.database.execute("INSERT INTO expired_days SELECT current_date - 40").await;
    assert_eq!(platform.count(dropped).await, 9 * 5);
    assert_eq!(drop_expired(&platform, LONGEST).await.dropped.len(), 5);
}

#[tokio::test]
async fn the_index_of_keys_is_built_in_the_background_when_there_are_keys() {
    let platform = platform_with_retention(30).await;
    platform
        .database
        .execute(
            "DROP INDEX idempotency_keys_event_id;
            CREATE INDEX idempotency_keys_event ON idempotency_keys USING brin (event_id)",
        )
        .await;
    assert_eq!(drop_expired(&platform, LONGEST).await.pruned_keys, 2);
    let indexes = "SELECT indexrelid::regclass::text FROM pg_index
        WHERE indrelid = 'idempotency_keys'::regclass AND indisvalid ORDER BY 1";
    assert_eq!(
        platform.database.texts(indexes).await,
        ["idempotency_keys_event_id", "idempotency_keys_pkey"]
    );
}
