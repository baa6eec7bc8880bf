//! One event is one event, however often it comes.

use futures::future::join_all;
use futures::join;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::super::harness::processes::free_port;
use super::super::harness::receiver::Receiver;
use super::super::harness::{
    Answer, Platform, acme_event, acme_integration, destination, integration_named, wait_for,
};
use super::nowhere;

#[tokio::test]
async fn duplicate_event_is_accepted_once() {
    let (platform, receiver) = (Platform::new().await, Receiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;

    let first = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!(first.status, 202, "{first:?}");
    let second = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(second.event_id(), first.event_id());
    assert_eq!(second.json()["data"]["duplicate"], true);

    let deliveries = receiver.wait_for(1).await;
    assert_eq!(deliveries[0].header("webhook-id"), first.event_id());
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 1);
}

#[tokio::test]
async fn hundred_concurrent_posts_of_one_event_make_one_event() {
    let (platform, receiver) = (Platform::new().await, Receiver::new().await);
    let integration = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&integration).await;

    let body = acme_event("e-1");
    let answers = join_all((0..100).map(|_| platform.post_acme(&body))).await;
    let accepted: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert_eq!(accepted.len(), 1);
    let id = accepted[0].event_id();
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 202) && answer.event_id() == id));
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 1).await;
    assert_eq!(receiver.deliveries().len(), 1);
}

/// While the table is locked, everything that arrives waits, and is one batch afterwards.
#[tokio::test]
async fn same_id_twice_inside_one_batch_makes_one_event() {
    let mut platform = Platform::new().await;
    let ops_port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;

    // Only the batches tell whether the posts had all arrived before the table was free again.
    for round in 1.. {
        assert!(round <= 10, "every event was a batch of its own: nothing was shown");
        let (events_before, batches_before) = batches(&platform, ops_port).await;
        let answers = post_while_locked(&platform, &format!("twice-{round}")).await;
        let accepted: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
        assert_eq!(accepted.len(), 1, "{answers:?}");
        let id = accepted[0].event_id();
        assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 202) && answer.event_id() == id));
        let sql = format!("SELECT count(*) FROM events WHERE external_event_id = 'twice-{round}'");
        assert_eq!(platform.count(&sql).await, 1);

        let (events, batches) = batches(&platform, ops_port).await;
        assert_eq!(events - events_before, 9.0);
        if batches - batches_before < 9.0 {
            break;
        }
    }
}

/// Posts one event eight times at once, behind another one whose commit waits for a lock.
async fn post_while_locked(platform: &Platform, id: &str) -> Vec<Answer> {
    let mut connection = PgConnection::connect(&platform.database_url()).await.expect("a connection");
    let mut lock = connection.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE idempotency_keys IN SHARE MODE").execute(&mut *lock).await.expect("the lock");
    let (blocker, twice) = (acme_event(&format!("before-{id}")), acme_event(id));
    let behind = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock' AND query LIKE '%events::store%'";
        wait_for("the first commit to wait for the table", || async { platform.count(waiting).await == 1 })
            .await;
        let release = async {
            // Answered after the posts were read, unless the machine is very busy.
            for _ in 0..20 {
                platform.get("/api/v1/health").await;
            }
            lock.rollback().await.expect("the lock is released");
        };
        join!(join_all((0..8).map(|_| platform.post_acme(&twice))), release).0
    };
    join!(platform.post_acme(&blocker), behind).1
}

/// Events and batches committed so far.
async fn batches(platform: &Platform, ops_port: u16) -> (f64, f64) {
    let url = format!("http://127.0.0.1:{ops_port}/metrics");
    let metrics = platform.http.get(url).send().await.expect("metrics").text().await.expect("metrics");
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.trim().parse::<f64>().expect("a number")
    };
    (value("grapnel_ingest_batch_events_sum "), value("grapnel_ingest_batch_events_count "))
}

#[tokio::test]
async fn same_id_in_two_integrations_is_two_events() {
    let platform = Platform::new().await;
    let both =
        acme_integration(&[nowhere()]) + "---\n" + &integration_named("acme-eu", "acme", "", &[nowhere()]);
    let _api = platform.start_api(&both).await;
    platform.wait_until_known("acme-eu").await;

    let body = acme_event("e-1");
    let signature = super::sign(body.as_bytes());
    let mut ids = Vec::new();
    for route in ["acme", "acme-eu"] {
        let path = format!("/api/v1/webhooks/{route}");
        let answer = platform.post(&path, &[("x-acme-signature", &signature)], &body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        ids.push(answer.event_id());
    }
    assert_ne!(ids[0], ids[1]);
}
