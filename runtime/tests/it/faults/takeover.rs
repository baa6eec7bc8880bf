//! The deliveries of a worker that is dead are taken over, and those of one that only lost a datastore are not.
//!
//! No lease ends in these tests, and no message is queued again because it may be lost.

use std::sync::Arc;
use std::time::Duration;

use grapnel_testing::{FaultProxy, Reply, TestProcess, TestReceiver, acme_event, wait_until};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::{BOUND, within};
use crate::harness::tally::Tally;
use crate::harness::{Platform, acme_integration};

const SUCCEEDED: &str = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";

/// Claimants whose session has ended.
const WITHOUT_SESSION: &str =
    "SELECT count(*) FROM claimants WHERE pg_try_advisory_xact_lock_shared(session)";

/// Longer than a dead worker's deliveries wait.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

const CONCURRENCY: usize = 8;

/// Returns an installation without workers. Leases run for a minute and a half.
async fn platform(receiver: &str) -> (Platform, TestProcess) {
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_REQUEUE_AFTER_SECONDS", "600");
    let api = platform
        .start_api(&acme_integration(&[format!(
            "{{name: orders, url: '{receiver}', timeoutSeconds: 60, maxConcurrency: {CONCURRENCY}}}"
        )]))
        .await;
    (platform, api)
}

async fn post(platform: &Platform, count: usize) {
    for number in 0..count {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
}

/// A worker whose datastores a test can cut off.
struct RemoteWorker {
    postgres: FaultProxy,
    rabbitmq: FaultProxy,
    process: TestProcess,
}

impl RemoteWorker {
    async fn start(platform: &mut Platform) -> Self {
        let direct = ["DATABASE_URL", "RABBITMQ_URL"].map(|name| (name, platform.variable(name)));
        let (postgres, rabbitmq) = (FaultProxy::new(&direct[0].1).await, FaultProxy::new(&direct[1].1).await);
        platform.set("DATABASE_URL", &postgres.url(&direct[0].1));
        platform.set("RABBITMQ_URL", &rabbitmq.url(&direct[1].1));
        let process = platform.start(&["worker"]);
        for (name, url) in &direct {
            platform.set(name, url);
        }
        Self { postgres, rabbitmq, process }
    }
}

#[tokio::test]
async fn deliveries_of_a_worker_that_is_killed_under_load_are_taken_over_at_once() {
    const EVENTS: usize = 60;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let receiver = TestReceiver::answering(move |_, _| Reply::WhenReleased(200, Arc::clone(&held))).await;
    let (platform, _api) = platform(&receiver.url("/")).await;
    let (mut killed, _other) = (platform.start(&["worker"]), platform.start(&["worker"]));
    platform.wait_for_count("SELECT count(*) FROM claimants", 2).await;
    post(&platform, EVENTS).await;
    receiver.wait_for(2 * CONCURRENCY).await;
    killed.kill();
    gate.add_permits(2 * EVENTS);
    let all = platform.wait_for_count(SUCCEEDED, EVENTS as i64);
    within(BOUND, "everything is delivered", all).await;
    // Those that the killed worker was sending arrived, and nobody could know.
    assert_eq!(receiver.deliveries().len(), EVENTS + CONCURRENCY);
    assert_eq!(platform.count("SELECT count(*) FROM delivery_attempts").await, EVENTS as i64);
    platform.wait_for_count("SELECT count(*) FROM claimants", 1).await;
}

#[tokio::test]
async fn deliveries_of_a_worker_without_postgres_or_without_rabbitmq_are_not_sent_by_another() {
    for without in ["postgres", "rabbitmq"] {
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let receiver = TestReceiver::answering(move |_, _| Reply::WhenReleased(200, Arc::clone(&held))).await;
        let (mut platform, api) = platform(&receiver.url("/")).await;
        let mut remote = RemoteWorker::start(&mut platform).await;
        platform.wait_for_count("SELECT count(*) FROM claimants", 1).await;
        post(&platform, CONCURRENCY).await;
        receiver.wait_for(CONCURRENCY).await;
        let _other = platform.start(&["worker"]);
        platform.wait_for_count("SELECT count(*) FROM claimants", 2).await;
        let queue = platform.orders_queue().await;
        if without == "postgres" {
            remote.postgres.close();
            platform.wait_for_count(WITHOUT_SESSION, 1).await;
        } else {
            queue.wait_for_consumers(2).await;
            remote.rabbitmq.close();
            // RabbitMQ gives the messages to the other worker.
            queue.wait_for_consumers(1).await;
            queue.wait_until_empty().await;
        }
        let until = Instant::now() + LONG_ENOUGH;
        while Instant::now() < until {
            assert_eq!(receiver.deliveries().len(), CONCURRENCY, "without {without}");
            // The interval of the readings, not a wait for a condition.
            sleep(Duration::from_millis(100)).await;
        }
        gate.add_permits(CONCURRENCY);
        remote.postgres.open();
        remote.rabbitmq.open();
        within(BOUND, "its results are recorded", platform.wait_for_count(SUCCEEDED, CONCURRENCY as i64))
            .await;
        assert_eq!(receiver.deliveries().len(), CONCURRENCY, "without {without}");
        assert!(!api.log().contains("deliveries of dead workers"), "without {without}");
        assert!(remote.process.is_running());
    }
}

#[tokio::test]
async fn worker_without_postgres_and_rabbitmq_stops_sending_before_another_begins() {
    let receiver = Tally::slow_at_first(Duration::from_secs(80)).await;
    let (mut platform, _api) = platform(&receiver.url()).await;
    let mut remote = RemoteWorker::start(&mut platform).await;
    platform.wait_for_count("SELECT count(*) FROM claimants", 1).await;
    post(&platform, CONCURRENCY).await;
    wait_until("all to be sent", async || receiver.counts().len() == CONCURRENCY).await;
    let _other = platform.start(&["worker"]);
    platform.wait_for_count("SELECT count(*) FROM claimants", 2).await;
    remote.postgres.close();
    remote.rabbitmq.close();
    within(BOUND, "another delivers", platform.wait_for_count(SUCCEEDED, CONCURRENCY as i64)).await;
    receiver.assert_each(CONCURRENCY, 2);
    assert!(remote.process.log().contains("attempts under way are dropped"));
    assert!(remote.process.is_running());
    // It works again when it has both.
    remote.postgres.open();
    remote.rabbitmq.open();
    within(BOUND, "it is back", platform.wait_for_count("SELECT count(*) FROM claimants", 2)).await;
}
