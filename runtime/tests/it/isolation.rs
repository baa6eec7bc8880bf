//! A destination in trouble does not slow the others.

mod held;
mod lanes;
mod queues;

use futures::future::join_all;
use grapnel_testing::{Reply, TestReceiver, acme_event, wait_until};

use super::harness::{Platform, acme_integration};

const OTHERS: [&str; 3] = ["/orders", "/billing", "/stock"];

/// What they take beside it is measured by `scripts/check-isolation`.
#[tokio::test]
async fn hanging_destination_holds_up_none_of_the_others() {
    const EVENTS: usize = 100;
    const MAX_CONCURRENCY: usize = 32;
    let receiver =
        TestReceiver::answering(
            move |_, delivery| {
                if delivery.path == "/hangs" { Reply::Hang } else { Reply::Status(200) }
            },
        )
        .await;
    let destinations: Vec<String> = OTHERS
        .iter()
        .chain(&["/hangs"])
        .map(|path| {
            format!(
                "{{name: {}, url: '{}', timeoutSeconds: 60, maxConcurrency: {MAX_CONCURRENCY}, retry: {{maxAttempts: 1}}}}",
                &path[1..],
                receiver.url(path)
            )
        })
        .collect();
    let platform = Platform::new().await;
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    let posts = (0..EVENTS).map(|number| {
        let platform = &platform;
        async move {
            let answer = platform.post_acme(&acme_event(&format!("e-{number}"))).await;
            assert_eq!(answer.status, 202, "{answer:?}");
        }
    });
    join_all(posts).await;
    let delivered = || OTHERS.map(|path| receiver.deliveries_to(path).len());
    wait_until("the deliveries to the others", || async { delivered() == [EVENTS; 3] }).await;
    // It did hang: it has as many as it may have at a time, the others wait for it, and no attempt has ended.
    wait_until("what it may have at a time", || async {
        receiver.deliveries_to("/hangs").len() == MAX_CONCURRENCY
    })
    .await;
    let attempts = "SELECT count(*) FROM delivery_attempts WHERE destination = 'hangs'";
    assert_eq!(platform.count(attempts).await, 0);
    let waiting = "SELECT count(*) FROM deliveries WHERE destination = 'hangs' AND finished_at IS NULL";
    assert_eq!(platform.count(waiting).await, EVENTS as i64);
}
