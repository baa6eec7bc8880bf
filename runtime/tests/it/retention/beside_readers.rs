//! Partitions come and go beside a reader of all tables, as `pg_dump` is one for as long as it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grapnel_store::partitions;
use grapnel_testing::{acme_event, wait_until};

use super::{LONGEST, TABLES, drop_expired, fill_old_days};
use crate::harness::{Platform, destination, integration};

const READ_ALL: &str =
    "LOCK TABLE events, event_requests, deliveries, delivery_attempts, replay_requests, audit_entries, idempotency_keys
    IN ACCESS SHARE MODE";

/// Drops the last day's partitions, as if it were to be created today.
const FORGET_LAST_DAY: &str = "DO $$ DECLARE parent text; BEGIN FOREACH parent IN ARRAY partitioned_tables() LOOP
    EXECUTE format('DROP TABLE %s_%s', parent, to_char(now() AT TIME ZONE 'UTC' + interval '14 days', 'YYYYMMDD'));
    END LOOP; END $$";

/// Waits for locks: those that would keep others from a whole table, and those that last longer than a `lock_timeout`.
const HARMFUL_WAITS: &str = "SELECT count(*) FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
    WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND NOT l.granted
        AND (l.mode = 'AccessExclusiveLock' AND c.relkind = 'p' OR l.waitstart < clock_timestamp() - interval '2 seconds')";

const LAST_DAY: &str = "SELECT count(*) FROM unnest(partitioned_tables()) AS parent WHERE to_regclass(
    format('%s_%s', parent, to_char(now() AT TIME ZONE 'UTC' + interval '14 days', 'YYYYMMDD'))) IS NOT NULL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_all_tables_holds_up_neither_webhooks_nor_the_coming_days() {
    let platform = Platform::new().await;
    let acme =
        integration("acme", "  retention: {days: 30}\n", &[destination("orders", "http://127.0.0.1:9/")]);
    platform.apply(&acme).await;
    fill_old_days(&platform.database).await;
    platform.database.execute(FORGET_LAST_DAY).await;
    assert!(partitions::days_ahead(&platform.db).await.expect("a number") < 15);

    let mut reader = platform.database.begin().await;
    reader.execute(READ_ALL).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watch = async {
        let mut harmful = 0;
        while !stop.load(Ordering::Relaxed) {
            harmful += platform.count(HARMFUL_WAITS).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        harmful
    };
    let work = async {
        let _api = platform.start_api(&acme).await;
        platform.wait_for_count(LAST_DAY, TABLES as i64).await;
        let mut number = 0;
        // The round goes on to the days that are past their retention; every webhook is accepted meanwhile.
        let pending = "SELECT count(*) FROM expired_days";
        while platform.count(pending).await < 10 || number < 50 {
            number += 1;
            let answer = platform.post_acme(&acme_event(&format!("e-{number}"))).await;
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (harmful, ()) = tokio::join!(watch, work);
    assert_eq!(harmful, 0);
    assert_eq!(partitions::days_ahead(&platform.db).await.expect("a number"), 15);
    let kept =
        "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^events_' AND relname < 'events_'
        || to_char(now() AT TIME ZONE 'UTC' - interval '30 days', 'YYYYMMDD')";
    assert_eq!(platform.count(kept).await, 10, "nothing is dropped while it is read");

    // What the reader has interrupted is finished in a later round, which may wait for a transaction of another test.
    reader.rollback().await;
    wait_until("all to be dropped", async || drop_expired(&platform, LONGEST).await.expired_days == 0).await;
    assert_eq!(platform.count(kept).await, 0);
}
