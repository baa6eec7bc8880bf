//! The partitions of a day are created ahead of it, and dropped as a whole, with the keys of its events.

mod beside_readers;
mod upgrade;

use grapnel_core::ids::EventId;
use grapnel_store::audit::Requester;
use grapnel_store::replays::{NewReplay, ReplayOutcome, request_replay};
use grapnel_store::retention::{self, RetentionRound};
use grapnel_testing::{TestDatabase, wait_until};

use super::harness::{Platform, acme_integration, destination, integration};

/// More than any retention of these tests.
const LONGEST: i32 = 365;

/// The tables that are partitioned by day.
const TABLES: usize = 6;

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
                INSERT INTO deliveries (event_id, destination, integration_id, status, attempts, finished_at, updated_at)
                SELECT id, 'orders', integration_id, 'succeeded', 1, now(), now() FROM event
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

/// Runs a round, once no other process does.
async fn drop_expired(platform: &Platform, longest_days: i32) -> RetentionRound {
    let mut round = None;
    wait_until("a turn", async || {
        round = retention::drop_expired(&platform.db, longest_days).await.expect("a round");
        round.is_some()
    })
    .await;
    round.expect("a round")
}

/// The event of an old day.
fn of_day(days_ago: i32) -> String {
    format!("(SELECT id FROM events WHERE idempotency_key = '{days_ago}')")
}

async fn unfinish(platform: &Platform, days_ago: i32) {
    let event = of_day(days_ago);
    platform
        .database
        .execute(&format!(
            "UPDATE deliveries SET status = 'pending', finished_at = NULL WHERE event_id = {event}"
        ))
        .await;
}

#[tokio::test]
async fn days_past_the_retention_are_dropped_with_all_of_their_rows() {
    let platform = platform_with_retention(30).await;
    let round = drop_expired(&platform, LONGEST).await;
    // Each day before the retention, from the oldest one, in each table.
    assert_eq!(round.dropped.len(), 10 * TABLES, "{round:?}");
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 1);
    assert_eq!(platform.count("SELECT count(*) FROM deliveries").await, 1);
    assert_eq!(
        platform.count("SELECT count(*) FROM audit_entries WHERE action = 'webhook.received'").await,
        1
    );
    assert_eq!(round.pruned_keys, 2);
    assert_eq!(platform.count("SELECT count(*) FROM idempotency_keys").await, 1);
    assert_eq!((round.expired_days, round.is_incomplete), (0, false));
    assert!(drop_expired(&platform, LONGEST).await.dropped.is_empty());
}

/// More keys than two statements read, of three days in no order.
#[tokio::test]
async fn keys_of_all_days_but_the_kept_ones_are_pruned_when_a_day_expires() {
    let platform = platform_with_retention(38).await;
    unfinish(&platform, 40).await;
    let insert = "INSERT INTO idempotency_keys
        SELECT gen_random_uuid(), uuidv7_floor(current_date - (ARRAY[40, 39, 20])[1 + number % 3] + interval '13 hours')
        FROM generate_series(1, 30000) AS number";
    platform.database.execute(insert).await;
    let left_over =
        "INSERT INTO idempotency_keys VALUES (gen_random_uuid(), uuidv7_floor(current_date - 50))";
    let of_kept_days = "SELECT count(*) FROM idempotency_keys
        WHERE (uuidv7_time(event_id) AT TIME ZONE 'UTC')::date IN (current_date - 40, current_date - 20)";
    platform.database.execute(left_over).await;
    let round = drop_expired(&platform, LONGEST).await;
    assert_eq!((round.pruned_keys, round.dropped.len()), (10_002, TABLES), "{round:?}");
    assert_eq!(platform.count(of_kept_days).await, 20_002);

    // The table is not read again before the next day expires.
    platform.database.execute(left_over).await;
    assert_eq!(drop_expired(&platform, LONGEST).await.pruned_keys, 0);
    let finish = "UPDATE deliveries SET status = 'failed', finished_at = now(), last_error = 'gone'";
    platform.database.execute(finish).await;
    let round = drop_expired(&platform, LONGEST).await;
    assert_eq!((round.pruned_keys, round.dropped.len()), (10_002, TABLES), "{round:?}");
}

#[tokio::test]
async fn a_day_with_unfinished_deliveries_is_kept_and_holds_up_no_other() {
    let platform = platform_with_retention(35).await;
    unfinish(&platform, 40).await;
    let round = drop_expired(&platform, LONGEST).await;
    assert_eq!(round.dropped.len(), 4 * TABLES, "{round:?}");
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 2);
    // The keys of the younger day do not wait for the older one.
    assert_eq!(round.pruned_keys, 1);
    let kept = format!("SELECT count(*) FROM idempotency_keys WHERE event_id = {}", of_day(40));
    assert_eq!(platform.count(&kept).await, 1);

    platform
        .database
        .execute("UPDATE deliveries SET status = 'failed', finished_at = now(), last_error = 'gone'")
        .await;
    let round = drop_expired(&platform, LONGEST).await;
    assert_eq!((round.dropped.len(), round.pruned_keys), (TABLES, 1), "{round:?}");
}

#[tokio::test]
async fn unfinished_deliveries_fail_a_week_after_the_retention_and_a_warning_comes_before() {
    let platform = platform_with_retention(33).await;
    unfinish(&platform, 40).await;
    unfinish(&platform, 39).await;
    let round = drop_expired(&platform, LONGEST).await;
    // One day is 7 days past its retention, the other one 6.
    assert_eq!((round.ending_deliveries, round.ended_deliveries), (2, 0), "{round:?}");
    let round = drop_expired(&platform, 32).await;
    assert_eq!((round.ending_deliveries, round.ended_deliveries), (1, 1), "{round:?}");
    assert_eq!(round.dropped.len(), 2 * TABLES, "{round:?}");
    let failed = "SELECT count(*) FROM audit_entries WHERE action = 'event.failed'
        AND details ->> 'error' = 'the retention of the event ended before it was delivered'";
    assert_eq!(platform.count(failed).await, 1);
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE finished_at IS NULL").await, 1);
}

#[tokio::test]
async fn a_retired_integration_keeps_its_history_as_long_as_it_asked() {
    let platform = platform_with_retention(60).await;
    platform.database.execute("UPDATE integrations SET deleted_at = now() - interval '59 days'").await;
    assert!(drop_expired(&platform, LONGEST).await.dropped.is_empty());
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 3);
    // Its last event is past its retention too.
    platform.database.execute("UPDATE integrations SET deleted_at = now() - interval '61 days'").await;
    drop_expired(&platform, LONGEST).await;
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn no_integration_keeps_days_beyond_the_retention_of_the_platform() {
    let platform = platform_with_retention(3650).await;
    let round = drop_expired(&platform, 30).await;
    assert_eq!(round.dropped.len(), 10 * TABLES, "{round:?}");
    let shortened: Vec<i32> = round.shortened.iter().map(|(_, days)| *days).collect();
    assert_eq!(shortened, [3650]);
    // Nor does a retired one, once the platform's retention has passed since.
    platform.database.execute("UPDATE integrations SET deleted_at = now() - interval '31 days'").await;
    assert!(drop_expired(&platform, 30).await.shortened.is_empty());
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn an_unfinished_replay_keeps_its_own_day_as_well_as_that_of_its_event() {
    let platform = platform_with_retention(35).await;
    unfinish(&platform, 40).await;
    let request = format!(
        "INSERT INTO replay_requests (id, event_id, requested_by, reason, created_at)
        SELECT {}, {}, 'test', 'because', now()",
        of_day(39),
        of_day(40)
    );
    platform.database.execute(&request).await;
    assert_eq!(drop_expired(&platform, LONGEST).await.dropped.len(), 3 * TABLES);
    assert_eq!(platform.count("SELECT count(*) FROM replay_requests").await, 1);
}

#[tokio::test]
async fn a_replay_of_an_event_comes_before_its_day_expires_or_is_refused() {
    let platform = platform_with_retention(35).await;
    let id = platform.database.text(&format!("SELECT {}::text", of_day(40))).await.expect("an id");
    let replay = NewReplay {
        event_id: EventId::new(id.parse().expect("a UUID")),
        destination: None,
        requested_by: "test".to_owned(),
        reason: "because".to_owned(),
        requester: Requester::key("current", [192, 0, 2, 7].into()),
    };
    // One that is under way holds the day, which is tried again later.
    let mut under_way = platform.database.begin().await;
    let lock = format!(
        "SELECT pg_advisory_xact_lock_shared(x'67726170'::int, (uuidv7_time('{id}') AT TIME ZONE 'UTC')::date - DATE '2000-01-01')"
    );
    under_way.execute(&lock).await;
    let round = drop_expired(&platform, LONGEST).await;
    assert_eq!((round.dropped.len(), round.is_incomplete), (4 * TABLES, true), "{round:?}");
    assert!(matches!(request_replay(&platform.db, &replay).await, Ok(ReplayOutcome::Accepted(..))));
    under_way.rollback().await;
    assert!(drop_expired(&platform, LONGEST).await.dropped.is_empty(), "the replay is not finished");

    platform.database.execute("INSERT INTO expired_days SELECT current_date - 40").await;
    assert_eq!(request_replay(&platform.db, &replay).await.expect("an answer"), ReplayOutcome::UnknownEvent);
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
