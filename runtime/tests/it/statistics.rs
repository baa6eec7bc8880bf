//! The statistics of integrations, against the events and attempts that there are.

use std::time::Duration;

use axum::http::StatusCode;
use grapnel_core::ids::IntegrationId;
use grapnel_crds::names::integration_id;
use grapnel_store::traffic::{self, TrafficCounts, TrafficRow};
use grapnel_testing::acme_event;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::tally::Tally;
use crate::harness::{Platform, acme_integration, destination};

fn sum(column: &str) -> String {
    format!("SELECT COALESCE(sum({column}), 0)::bigint FROM traffic_minutes")
}

async fn stats(platform: &Platform, window: &str) -> Value {
    let id = integration_id(None, "test", "acme");
    let answer = platform.get(&format!("/api/v1/integrations/{id}/stats?window={window}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["data"].clone()
}

/// Corrects all minutes up to now.
async fn close(platform: &Platform) {
    let soon = Timestamp::now() + SignedDuration::from_mins(2);
    assert!(traffic::close_minutes(&platform.db, soon, 100).await.expect("a commit") > 0);
}

#[tokio::test]
async fn traffic_is_counted_as_it_was() {
    const EVENTS: i64 = 10;
    let recovers = Tally::new(Duration::ZERO, |request| {
        if request == 1 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
    })
    .await;
    let broken = Tally::new(Duration::ZERO, |_| StatusCode::INTERNAL_SERVER_ERROR).await;
    let platform = Platform::new().await;
    let quiet = format!("{{name: quiet, url: '{}', eventTypes: ['other.*']}}", broken.url());
    let destinations = [destination("orders", &recovers.url()), destination("broken", &broken.url()), quiet];
    // One request without credentials was the one that found the route known.
    let (_api, _worker) = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    for number in 0..EVENTS {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
    for _ in 0..4 {
        assert_eq!(platform.post_acme(&acme_event("e-0")).await.status, 200);
    }
    for _ in 0..3 {
        let forged = platform.post("/api/v1/webhooks/acme", &[("x-acme-signature", "00")], "{}").await;
        assert_eq!(forged.status, 401);
    }
    platform
        .wait_for_count("SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL", 3 * EVENTS)
        .await;
    for (column, expected) in [
        ("accepted", EVENTS),
        ("duplicate", 4),
        ("refused", 1 + 3),
        ("filtered", EVENTS),
        ("delivered", EVENTS),
        ("failed", EVENTS),
        ("retrying", EVENTS + 2 * EVENTS),
    ] {
        platform.wait_for_count(&sum(column), expected).await;
    }
    let attempts =
        "SELECT COALESCE(sum(attempts), 0)::bigint FROM traffic_minutes, unnest(durations) AS attempts";
    assert_eq!(platform.count(attempts).await, 5 * EVENTS);

    for window in ["1h", "24h", "7d"] {
        let shown = stats(&platform, window).await;
        let counted =
            ["accepted", "duplicate", "refused", "filtered", "delivered", "failed", "retrying", "backlog"];
        let counted: Vec<_> = counted.iter().map(|name| shown[name].as_i64().expect("a number")).collect();
        assert_eq!(counted, [10, 4, 4, 10, 10, 10, 30, 0], "{shown}");
        assert!(shown["attemptDuration"]["p50Ms"].is_number() && shown["oldestWaiting"].is_null(), "{shown}");
        let names: Vec<_> = shown["destinations"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(names, ["broken", "orders", "quiet"]);
        let quiet = &shown["destinations"][2];
        assert_eq!((&quiet["filtered"], &quiet["delivered"]), (&json!(10), &json!(0)));
        assert!(quiet["attemptDuration"]["p99Ms"].is_null());
    }
    let unknown = platform.get(&format!("/api/v1/integrations/{}/stats", Uuid::now_v7())).await;
    assert_eq!(unknown.status, 404);

    // The hot statements were planned while the day was empty, and did not take an index of searches for the primary key.
    let searches = "SELECT COALESCE(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes
        WHERE relname LIKE 'events\\_2%' AND indexrelname LIKE '%integration\\_id%'";
    assert_eq!(platform.count(searches).await, 0);

    // What was counted wrong is corrected from the rows, also where nothing was counted.
    platform.database.execute("UPDATE traffic_minutes SET accepted = accepted + 7, delivered = 0").await;
    let minute_before = "INSERT INTO traffic_minutes (integration_id, minute, destination, accepted)
        SELECT integration_id, until, 'nobody', 3 FROM traffic_minutes, traffic_closed LIMIT 1";
    platform.database.execute(minute_before).await;
    close(&platform).await;
    for (column, expected) in
        [("accepted", EVENTS), ("delivered", EVENTS), ("failed", EVENTS), ("duplicate", 4)]
    {
        assert_eq!(platform.count(&sum(column)).await, expected, "{column}");
    }
}

#[tokio::test]
async fn killed_processes_lose_nothing_that_is_in_rows() {
    const EVENTS: i64 = 20;
    let receiver = Tally::new(Duration::ZERO, |_| StatusCode::OK).await;
    let platform = Platform::new().await;
    let (mut api, mut worker) =
        platform.start_api_and_worker(&acme_integration(&[destination("orders", &receiver.url())])).await;
    for number in 0..EVENTS {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", EVENTS).await;
    api.kill();
    worker.kill();
    close(&platform).await;
    assert_eq!(platform.count(&sum("accepted")).await, EVENTS);
    assert_eq!(platform.count(&sum("delivered")).await, EVENTS);

    let _api = platform.start(&["api"]);
    platform.wait_until_accepting().await;
    let shown = stats(&platform, "1h").await;
    assert_eq!((&shown["accepted"], &shown["delivered"]), (&json!(EVENTS), &json!(EVENTS)), "{shown}");
}

#[tokio::test]
async fn an_addition_counts_once_and_not_in_what_is_corrected() {
    let platform = Platform::new().await;
    let minute = |ago| {
        let time = (Timestamp::now() - SignedDuration::from_mins(ago)).as_second();
        Timestamp::from_second(time - time.rem_euclid(60)).expect("a time")
    };
    let integration_id = IntegrationId::new(Uuid::now_v7());
    let row = |minute, destination: &str, durations: &[i32]| TrafficRow {
        integration_id,
        minute,
        destination: destination.to_owned(),
        counts: TrafficCounts {
            accepted: 1,
            duplicate: 2,
            refused: 3,
            delivered: 4,
            failed: 5,
            retrying: 6,
            filtered: 7,
            durations: durations.to_vec(),
        },
    };
    let writer = Uuid::now_v7();
    let now = minute(-1);
    let rows = [row(now, "", &[]), row(now, "a", &[1, 2])];
    for sequence in [1, 1, 2, 1] {
        traffic::add(&platform.db, writer, sequence, &rows).await.expect("a commit");
    }
    traffic::add(&platform.db, Uuid::now_v7(), 1, &[row(now, "a", &[0, 1, 5])]).await.expect("a commit");
    let columns = "accepted, duplicate, refused, delivered, failed, retrying, filtered, durations";
    let added = format!(
        "SELECT to_json(t)::text FROM (SELECT {columns} FROM traffic_minutes ORDER BY destination) t"
    );
    let added = platform.database.texts(&added).await;
    assert_eq!(
        added,
        [
            r#"{"accepted":2,"duplicate":4,"refused":6,"delivered":8,"failed":10,"retrying":12,"filtered":14,"durations":[]}"#,
            r#"{"accepted":3,"duplicate":6,"refused":9,"delivered":12,"failed":15,"retrying":18,"filtered":21,"durations":[2,5,5]}"#,
        ]
    );

    close(&platform).await;
    assert_eq!(platform.count(&sum("accepted + delivered")).await, 0);
    traffic::add(&platform.db, writer, 3, &rows).await.expect("a commit");
    assert_eq!(platform.count(&sum("accepted + delivered")).await, 0);
    assert_eq!(platform.count(&sum("duplicate")).await, 4 + 6 + 2 * 2);

    // Old minutes go.
    traffic::add(&platform.db, writer, 4, &[row(minute(36 * 24 * 60), "a", &[])]).await.expect("a commit");
    assert_eq!(traffic::drop_old(&platform.db).await.expect("a commit"), 1);
}
