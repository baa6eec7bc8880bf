//! While a worker lives that cannot read events that share their request, each is stored as if it had come alone.

use grapnel_testing::{TestReceiver, wait_until};
use serde_json::{Value, json};

use super::{element, events, list, post, request};
use crate::harness::Platform;

const FORMS: &str =
    "SELECT json_agg(json_build_array(convert_from(raw_body, 'UTF8'), body_form, request_id IS NULL)
    ORDER BY id)::text FROM events";

#[tokio::test]
async fn nothing_is_stored_that_a_live_worker_cannot_read() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let destinations = json!([{"name": "orders", "url": receiver.url("/")}]);
    platform.apply(&list(&json!({"deliver": "raw"}), &destinations)).await;
    platform.insert_older_worker(0).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known("list").await;
    let answer = post(&platform, &request(&[&element("1"), &element("2")])).await;
    assert_eq!((answer.status, events(&answer).len()), (202, 2), "{answer:?}");
    let stored = platform.database.text(FORMS).await.expect("events");
    let expected = json!([[element("1"), 0, true], [element("2"), 0, true]]);
    assert_eq!(serde_json::from_str::<Value>(&stored).expect("JSON"), expected);
    assert_eq!(platform.count("SELECT count(*) FROM event_requests").await, 0);

    // The older worker is gone.
    platform.database.execute("DELETE FROM worker_heartbeats").await;
    let mut number = 10;
    wait_until("requests to be stored once", async || {
        number += 2;
        let (one, two) = (element(&number.to_string()), element(&(number + 1).to_string()));
        assert_eq!(post(&platform, &request(&[&one, &two])).await.status, 202);
        platform.count("SELECT count(*) FROM event_requests").await == 1
    })
    .await;
    let _worker = platform.start(&["worker"]);
    let count = platform.count("SELECT count(*) FROM events").await;
    let deliveries = receiver.wait_for(usize::try_from(count).expect("a count")).await;
    let mut bodies: Vec<String> = deliveries.into_iter().map(|delivery| delivery.body).collect();
    bodies.sort();
    let mut expected: Vec<String> =
        [1, 2].into_iter().chain(12..=number + 1).map(|id| element(&id.to_string())).collect();
    expected.sort();
    assert_eq!(bodies, expected);
    platform.wait_for_count("SELECT count(*) FROM worker_heartbeats WHERE format_version > 0", 1).await;
}
