//! A destination in trouble does not slow the others.

mod held;
mod lanes;
mod queues;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use grapnel_testing::{Delivery, Reply, TestReceiver, acme_event, wait_until};
use tokio::time::{Instant, sleep_until};

use super::harness::{Platform, acme_integration};

/// The events of one round, and their distance: few for the machine, and enough for a stable 99th percentile, since each is
/// measured at three destinations.
const EVENTS: usize = 200;
const DISTANCE: Duration = Duration::from_millis(20);

/// Rounds with and without the hanging destination alternate, so that both have the same noise of the machine.
const ROUNDS: usize = 5;

const OTHERS: [&str; 3] = ["/orders", "/billing", "/stock"];

struct Rounds {
    platform: Platform,
    receiver: TestReceiver,
    /// The number of the round, a part of the events' ids.
    begun: usize,
}

impl Rounds {
    /// Sends a round of events and returns the 99th percentile, over the destinations that do not hang, of the time between
    /// the request of the provider and ours.
    async fn run(&mut self) -> Duration {
        self.begun += 1;
        let start = Instant::now();
        let posts = (0..EVENTS).map(|number| {
            let (platform, round) = (&self.platform, self.begun);
            async move {
                let id = format!("e-{round}-{number}");
                sleep_until(start + DISTANCE * u32::try_from(number).expect("a small number")).await;
                let sent_at = Instant::now();
                let answer = platform.post_acme(&acme_event(&id)).await;
                assert_eq!(answer.status, 202, "{answer:?}");
                (id, sent_at)
            }
        });
        let sent: HashMap<String, Instant> = join_all(posts).await.into_iter().collect();
        let arrived = || {
            let of_round = |delivery: &Delivery| {
                let id = delivery.json()["externalEventId"].as_str().expect("an id").to_owned();
                sent.get(&id).map(|sent_at| delivery.at - *sent_at)
            };
            let others = OTHERS.iter().flat_map(|path| self.receiver.deliveries_to(path));
            others.filter_map(|delivery| of_round(&delivery)).collect::<Vec<_>>()
        };
        wait_until("the deliveries to the others", || async { arrived().len() >= OTHERS.len() * EVENTS })
            .await;
        let mut latencies = arrived();
        assert_eq!(latencies.len(), OTHERS.len() * EVENTS, "each was delivered once");
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    }
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_destination_leaves_the_others_within_twice_their_latency() {
    let hangs = Arc::new(AtomicBool::new(false));
    let hanging = Arc::clone(&hangs);
    let receiver = TestReceiver::answering(move |_, delivery| {
        if delivery.path == "/hangs" && hanging.load(Ordering::Relaxed) {
            Reply::Hang
        } else {
            Reply::Status(200)
        }
    })
    .await;
    let destinations: Vec<String> = OTHERS
        .iter()
        .chain(&["/hangs"])
        .map(|path| {
            format!(
                "{{name: {}, url: '{}', timeoutSeconds: 2, maxConcurrency: 32, retry: {{maxAttempts: 1}}}}",
                &path[1..],
                receiver.url(path)
            )
        })
        .collect();
    let platform = Platform::new().await;
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    let mut rounds = Rounds { platform, receiver, begun: 0 };
    rounds.run().await; // connections are made, pages are filled

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(rounds.run().await);
        hangs.store(true, Ordering::Relaxed);
        with.push(rounds.run().await);
        // It did hang: more events were waiting for it than it may have in flight.
        let waiting = "SELECT count(*) FROM deliveries WHERE destination = 'hangs' AND finished_at IS NULL";
        assert!(rounds.platform.count(waiting).await > 32);
        hangs.store(false, Ordering::Relaxed);
        rounds.platform.wait_for_count(waiting, 0).await;
    }
    let (without_it, with_it) = (median(without.clone()), median(with.clone()));
    eprintln!("p99 without the hanging destination: {without:?}; with it: {with:?}");
    assert!(
        with_it <= without_it * 2,
        "p99 {with_it:?} with it, {without_it:?} without: {with:?} {without:?}"
    );
}
