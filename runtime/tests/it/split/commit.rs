//! The events of a request are committed together.

use std::sync::atomic::{AtomicU64, Ordering};

use grapnel_testing::wait_until;
use serde_json::Value;

use super::{TOKEN, element, events, post, request, start};

#[tokio::test]
async fn a_hundred_elements_are_one_transaction() {
    let (platform, _api) = start().await;
    let elements: Vec<String> = (0..100).map(|number| element(&number.to_string())).collect();
    let answer = post(&platform, &request(&elements.iter().map(String::as_str).collect::<Vec<_>>())).await;
    assert_eq!((answer.status, events(&answer).len()), (202, 100));
    let rows = "SELECT xmin FROM events UNION ALL SELECT xmin FROM deliveries UNION ALL SELECT xmin FROM idempotency_keys
        UNION ALL SELECT xmin FROM event_requests";
    assert_eq!(platform.count(&format!("SELECT count(*) FROM ({rows}) AS r")).await, 301);
    assert_eq!(platform.count(&format!("SELECT count(DISTINCT xmin::text) FROM ({rows}) AS r")).await, 1);
}

#[tokio::test]
async fn of_a_request_during_a_crash_all_events_are_stored_or_none() {
    const EACH: usize = 40;
    let (platform, mut api) = start().await;
    let (sent, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
    let send = async || {
        loop {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            let elements: Vec<String> = (0..EACH).map(|at| element(&format!("{number}-{at}"))).collect();
            let body = request(&elements.iter().map(String::as_str).collect::<Vec<_>>());
            let post = platform.http.post(platform.url(super::PATH)).header("x-token", TOKEN);
            match post.header("content-type", "application/json").body(body).send().await {
                Ok(answer) if answer.status() == 202 => {
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                Ok(answer) => assert_eq!(answer.status(), 503),
                Err(_) => platform.wait_until_known("list").await,
            }
        }
    };
    let crash = async {
        for _ in 0..3 {
            let enough = accepted.load(Ordering::Relaxed) + 30;
            wait_until("requests to be accepted", async || accepted.load(Ordering::Relaxed) >= enough).await;
            api.kill();
            api = platform.start(&["api"]);
        }
    };
    let senders: [_; 8] = std::array::from_fn(|_| send());
    tokio::select! {
        _ = futures::future::join_all(senders) => {}
        () = crash => {}
    }
    api.kill();
    let partial = "SELECT count(*) FROM (
            SELECT FROM events GROUP BY request_id, request_count HAVING count(*) <> request_count
        ) AS partial";
    assert_eq!(platform.count(partial).await, 0);
    let requests = platform.count("SELECT count(*) FROM event_requests").await;
    assert!(requests >= i64::try_from(accepted.load(Ordering::Relaxed)).expect("a count"), "{requests}");
    for table in ["events", "deliveries", "idempotency_keys"] {
        let stored = platform.count(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(stored, requests * i64::try_from(EACH).expect("a count"), "{table}");
    }
}

#[tokio::test]
async fn an_element_that_cannot_be_stored_refuses_its_request_and_no_other() {
    let (platform, _api) = start().await;
    // A check of the database stands for whatever PostgreSQL refuses in a row.
    platform.database.execute("ALTER TABLE events ADD CHECK (external_event_id <> 'refused')").await;
    let bodies = [request(&[&element("1"), &element("refused")]), request(&[&element("2"), &element("3")])];
    let answers = futures::future::join_all(bodies.iter().map(|body| post(&platform, body))).await;
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [503, 202]);
    let ids = platform.database.rows("SELECT external_event_id AS id FROM events ORDER BY id").await;
    assert_eq!(ids.iter().map(|row| &row["id"]).collect::<Vec<&Value>>(), ["2", "3"]);
}
