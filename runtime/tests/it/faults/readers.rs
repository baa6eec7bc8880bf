//! Management requests that PostgreSQL answers late.

use futures::future::join_all;
use grapnel_testing::{Reply, TestReceiver, acme_event, wait_until};

use crate::harness::{Platform, acme_integration, destination};

/// More than an api has connections.
const READERS: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_take_no_connection_from_webhooks_and_deliveries() {
    let receiver = TestReceiver::answering(|_, _| Reply::Status(200)).await;
    let platform = Platform::new().await;
    let acme = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let _running = platform.start_api_and_worker(&acme).await;
    assert_eq!(platform.post_acme(&acme_event("before")).await.status, 202);
    platform.wait_for_count("SELECT count(*) FROM delivery_attempts", 1).await;

    // Only the lists of attempts read this table, and the results of deliveries are written to it.
    let mut holder = platform.database.begin().await;
    holder.execute("LOCK TABLE delivery_attempts IN ACCESS EXCLUSIVE MODE").await;
    let read = join_all((0..READERS).map(|_| platform.get("/api/v1/deliveries")));
    let work = async {
        let reading = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND application_name = 'grapnel-api-management' AND wait_event_type = 'Lock'";
        wait_until("all of their connections to wait", async || platform.count(reading).await >= 6).await;
        let due = "UPDATE deliveries SET status = 'pending', finished_at = NULL, due_at = now(), budget_start = attempts";
        platform.database.execute(due).await;
        assert_eq!(platform.post_acme(&acme_event("meanwhile")).await.status, 202);
        receiver.wait_for(3).await;
        assert!(platform.count(reading).await > 0, "they wait still");
        holder.rollback().await;
    };
    let (answers, ()) = tokio::join!(read, work);
    assert!(answers.iter().all(|answer| [200, 503].contains(&answer.status)), "{answers:?}");
}
