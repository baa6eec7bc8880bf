//! The trouble of a queue is that of its destination alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use grapnel_crds::names::integration_id;
use grapnel_testing::{FaultProxy, TestProcess, TestQueue, TestReceiver, acme_event, free_port, wait_until};

use crate::harness::{GLOBEX_TOKEN, Platform, acme_integration, destination, integration};

/// Events for the offender: more than its queue takes, and more than are published at a time.
const OFFENDING: usize = 300;

/// An installation with the Integrations `acme`, whose queue is in trouble and is not consumed, and `globex`.
struct Neighbours {
    platform: Platform,
    receiver: TestReceiver,
    api: TestProcess,
    _worker: TestProcess,
    ops_port: u16,
}

impl Neighbours {
    /// Starts them once `prepare` has seen acme's queue, before the api has published to it.
    async fn new(prepare: impl AsyncFnOnce(&TestQueue)) -> Self {
        let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
        let both = acme_integration(&[destination("orders", &receiver.url("/acme"))])
            + "---\n"
            + &integration("globex", "", &[destination("assets", &receiver.url("/globex"))]);
        platform.apply(&both).await;
        prepare(&platform.queue("acme", "orders")).await;
        let ops_port = free_port();
        platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
        let api = platform.start(&["api"]);
        platform.set("GRAPNEL_OPS_ADDR", "127.0.0.1:0");
        platform.set("GRAPNEL_INTEGRATION", &integration_id(None, "test", "globex").to_string());
        let worker = platform.start(&["worker"]);
        platform.wait_until_accepting().await;
        Self { platform, receiver, api, _worker: worker, ops_port }
    }

    async fn offend(&self, name: &str, events: usize) {
        for number in 0..events {
            let id = format!("e-{name}-{number}");
            assert_eq!(self.platform.post_acme(&acme_event(&id)).await.status, 202);
        }
    }

    /// Posts events to the neighbour and waits for each before the next one.
    async fn deliver_to_neighbour(&self, name: &str, events: usize) {
        let before = self.receiver.deliveries_to("/globex").len();
        for number in 1..=events {
            let id = format!("g-{name}-{number}");
            let body =
                format!(r#"{{"id":"{id}","type":"t","timestamp":"2026-11-24T10:00:00Z","resource":{{}}}}"#);
            let headers = [("x-globex-token", GLOBEX_TOKEN)];
            let answer = self.platform.post("/api/v1/webhooks/globex", &headers, &body).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            wait_until("the neighbour's delivery", async || {
                self.receiver.deliveries_to("/globex").len() >= before + number
            })
            .await;
        }
        assert_eq!(self.receiver.deliveries_to("/globex").len(), before + events, "each arrived once");
    }

    /// Starts a worker for the offender and waits until each of its events was delivered once.
    async fn recover(&mut self, events: usize) {
        self.platform.set("GRAPNEL_INTEGRATION", &integration_id(None, "test", "acme").to_string());
        let _worker = self.platform.start(&["worker"]);
        let succeeded =
            "SELECT count(*) FROM deliveries WHERE destination = 'orders' AND status = 'succeeded'";
        self.platform.wait_for_count(succeeded, events as i64).await;
        assert_eq!(self.receiver.deliveries_to("/acme").len(), events, "each once");
    }

    /// Returns the sum of a metric of the api over its labels that contain `label`.
    async fn metric(&self, name: &str, label: &str) -> i64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.ops_port);
        let metrics =
            self.platform.http.get(url).send().await.expect("metrics").text().await.expect("a text");
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    }

    /// Asserts that the publisher's channel has not ended, and that the log says why the queue failed.
    async fn assert_contained(&self, reason: &str) {
        for of_all_queues in ["disconnected", "no_room", "unconfirmed"] {
            assert_eq!(
                self.metric("grapnel_queue_publish_failures_total", of_all_queues).await,
                0,
                "{of_all_queues}"
            );
        }
        let log = self.api.log();
        assert!(!log.contains("publishing stopped"), "the channel ended");
        assert!(log.contains(reason), "{reason}");
    }
}

#[tokio::test]
async fn full_queue_leaves_its_neighbour_alone_and_costs_little() {
    let mut neighbours = Neighbours::new(async |queue| queue.limit_length(5).await).await;
    neighbours.offend("all", OFFENDING).await;
    neighbours.deliver_to_neighbour("first", 20).await;
    neighbours.assert_contained("the queue is full or unavailable").await;
    let queue = neighbours.platform.queue("acme", "orders");
    assert!(queue.messages().await <= 10, "it is full");
    // One more is tried now and then, and not all of them.
    let refused = || neighbours.metric("grapnel_queue_publish_failures_total", "refused");
    let before = refused().await;
    wait_until("another try", async || refused().await > before).await;
    assert!(refused().await - before <= 10);
    neighbours.deliver_to_neighbour("second", 5).await;
    queue.lift_limit().await;
    neighbours.recover(OFFENDING).await;
}

#[tokio::test]
async fn missing_queue_leaves_its_neighbour_alone() {
    let mut neighbours = Neighbours::new(async |_| {}).await;
    let queue = neighbours.platform.queue("acme", "orders");
    neighbours.offend("first", 1).await;
    queue.wait_for(1).await;
    for number in 0..3 {
        queue.delete().await;
        neighbours.offend(&number.to_string(), 10).await;
        neighbours.deliver_to_neighbour(&number.to_string(), 5).await;
        queue.wait_for(1).await;
    }
    neighbours.assert_contained("the queue is missing").await;
    neighbours.recover(31).await;
}

/// So long that the last try is made when the channel of the others would be replaced for it.
const TRIES: i64 = 3;

#[tokio::test]
async fn queue_without_a_majority_leaves_its_neighbour_alone() {
    let mut neighbours = Neighbours::new(async |_| {}).await;
    let queue = neighbours.platform.queue("acme", "orders");
    neighbours.offend("first", 1).await;
    queue.wait_for(1).await;
    queue.suspend(&neighbours.platform.services).await;
    neighbours.offend("all", OFFENDING).await;
    let failures = || neighbours.metric("grapnel_queue_publish_failures_total", "unconfirmed");
    neighbours.deliver_to_neighbour("first", 1).await;
    assert_eq!(failures().await, 0, "the neighbour did not wait until the queue was given up");
    wait_until("the queue is found to confirm nothing", async || failures().await > 0).await;
    neighbours.deliver_to_neighbour("second", 20).await;
    // It is tried with one hint now and then, on a channel on which nobody else waits.
    let (before, mut number) = (failures().await, 0);
    while failures().await < before + TRIES {
        neighbours.deliver_to_neighbour(&format!("beside-{number}"), 1).await;
        number += 1;
    }
    assert!(failures().await - before <= TRIES + 10);
    let cut_off = neighbours.metric("grapnel_queue_publish_failures_total", "disconnected").await;
    assert_eq!(cut_off, 0, "nobody's channel was given up");
    queue.resume(&neighbours.platform.services).await;
    neighbours.recover(1 + OFFENDING).await;
}

#[tokio::test]
async fn queue_with_other_arguments_leaves_its_neighbour_alone() {
    let mut neighbours = Neighbours::new(async |queue| {
        queue.delete().await;
        queue.declare_as_classic().await;
    })
    .await;
    neighbours.offend("all", OFFENDING).await;
    neighbours.deliver_to_neighbour("first", 20).await;
    neighbours.assert_contained("a queue with this name exists with other arguments").await;
    neighbours.platform.queue("acme", "orders").delete().await;
    neighbours.recover(OFFENDING).await;
}

/// With a broker so far away some message is on its way at any moment, and none of them is for the queue that lost its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_message_is_found_while_other_queues_are_busy() {
    const DESTINATIONS: usize = 16;
    const SENDERS: usize = 4;
    let (mut platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let direct = platform.variable("RABBITMQ_URL");
    let far = FaultProxy::with_delay(&direct, Duration::from_millis(20)).await;
    platform.set("RABBITMQ_URL", &far.url(&direct));
    let busy: Vec<_> = (0..DESTINATIONS)
        .map(|number| destination(&format!("busy-{number}"), &receiver.url("/acme")))
        .collect();
    let both = acme_integration(&busy)
        + "---\n"
        + &integration("globex", "", &[destination("assets", &receiver.url("/globex"))]);
    let _api = platform.start_api(&both).await;
    let queue = platform.queue("globex", "assets");
    let body = r#"{"id":"g-1","type":"t","timestamp":"2026-11-24T10:00:00Z","resource":{}}"#;
    let answer = platform.post("/api/v1/webhooks/globex", &[("x-globex-token", GLOBEX_TOKEN)], body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    queue.wait_for(1).await;

    let is_found = AtomicBool::new(false);
    let senders = (0..SENDERS).map(|sender| {
        let (platform, is_found) = (&platform, &is_found);
        async move {
            let mut sent = 0;
            while !is_found.load(Ordering::Relaxed) {
                let event = acme_event(&format!("e-{sender}-{sent}"));
                assert_eq!(platform.post_acme(&event).await.status, 202);
                sent += 1;
            }
            sent
        }
    });
    let find = async {
        assert_eq!(queue.purge().await, 1);
        queue.wait_for(1).await;
        is_found.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(join_all(senders), find);
    assert!(sent.iter().sum::<usize>() > SENDERS, "the others were busy: {sent:?}");
}
