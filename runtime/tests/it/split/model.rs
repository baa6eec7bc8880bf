//! Any sequence of requests against a model: each distinct occurrence is stored once, and none is called a duplicate that was not
//! stored.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use grapnel_testing::WebhookRequest;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::events;
use crate::providers::sent::{Senders, webhook};

/// The occurrences that requests are made of.
const OCCURRENCES: u64 = 6;

/// Providers with an id of each event, with an id and its scope, and without one.
const PROVIDERS: [&str; 6] = ["sendgrid", "gocardless", "cloudevents", "hubspot", "brevo", "klaviyo"];

/// Returns an element. `run` tells the occurrences of one sequence from those of others; `attempt` is another each time that it is
/// sent.
fn element(provider: &str, run: u64, number: u64, attempt: usize) -> Value {
    let (id, time) = (format!("{run}-{number}"), 1_769_850_000 + number);
    match provider {
        "sendgrid" => json!({"event": "open", "sg_event_id": id, "timestamp": time}),
        "gocardless" => {
            json!({"id": id, "resource_type": "payments", "created_at": "2026-01-31T09:00:00.000Z"})
        }
        // Two sources have the same ids.
        "cloudevents" => json!({
            "specversion": "1.0", "id": format!("{run}-{}", number / 2), "source": format!("/{}", number % 2), "type": "t",
        }),
        "hubspot" => json!({
            "eventId": 1, "subscriptionType": "t", "objectId": number, "occurredAt": run, "attemptNumber": attempt,
        }),
        "brevo" => json!({"event": "opened", "id": 1, "message-id": id, "ts_event": time}),
        _ => json!({"topic": "event:t", "external_id": id, "payload": {}}),
    }
}

/// Returns a request with these occurrences. `sent` is how many elements were sent before.
fn request(provider: &str, run: u64, numbers: &[u64], sent: usize) -> WebhookRequest {
    let attempts = numbers.iter().zip(sent..);
    let elements: Vec<Value> =
        attempts.map(|(number, attempt)| element(provider, run, *number, attempt)).collect();
    let body = match provider {
        "gocardless" => json!({"events": elements, "meta": {"webhook_id": format!("WB-{numbers:?}")}}),
        "klaviyo" => json!({"data": elements, "meta": {"klaviyo_account_id": "a"}}),
        _ => json!(elements),
    };
    let request = webhook(provider, &body.to_string());
    match provider {
        "cloudevents" => WebhookRequest {
            headers: vec![("content-type".into(), "application/cloudevents-batch+json".into())],
            ..request
        },
        "klaviyo" => request.header("klaviyo-timestamp", "Sat, 31 Jan 2026 09:00:00 GMT"),
        // This one's time is in milliseconds.
        "hubspot" => {
            let headers =
                request.headers.iter().map(|(name, value)| (name.clone(), value.replace("@now@", "@nowMs@")));
            WebhookRequest { headers: headers.collect(), ..request }
        }
        _ => request,
    }
}

async fn check(
    senders: &Senders,
    provider: &str,
    run: u64,
    sequence: &[Vec<u64>],
) -> Result<(), TestCaseError> {
    // By occurrence: the event, and what of it was sent first.
    let mut stored: HashMap<u64, (String, Value)> = HashMap::new();
    let mut sent = 0;
    for numbers in sequence {
        let answer = senders.post(&request(provider, run, numbers, sent)).await;
        prop_assert!(matches!(answer.status, 200 | 202), "{provider} {numbers:?}: {answer:?}");
        let events = events(&answer);
        prop_assert_eq!(events.len(), numbers.len());
        for (number, (id, duplicate)) in numbers.iter().zip(events) {
            let first = stored.get(number);
            prop_assert_eq!(duplicate, first.is_some(), "{} {} of {:?}", provider, number, numbers);
            prop_assert!(first.is_none_or(|(first, _)| *first == id), "{provider} {number} of {numbers:?}");
            stored.entry(*number).or_insert_with(|| (id, element(provider, run, *number, sent)));
            sent += 1;
        }
    }
    for (id, element) in stored.values() {
        let record = senders.record(id).await;
        prop_assert_eq!(&record["event"]["normalizedPayload"]["data"], element, "{}: {}", provider, record);
    }
    let ids: Vec<String> = stored.values().map(|(id, _)| format!("'{id}'")).collect();
    let count = format!("SELECT count(*) FROM events WHERE id IN ({})", ids.join(","));
    prop_assert_eq!(senders.platform.count(&count).await, i64::try_from(stored.len()).expect("a count"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_occurrence_is_stored_once_in_whatever_requests_it_comes() {
    let senders = Senders::start(&PROVIDERS).await;
    let run = AtomicU64::new(0);
    let request = prop::collection::vec(0..OCCURRENCES, 1..6);
    let sequences = (prop::sample::select(PROVIDERS.to_vec()), prop::collection::vec(request, 1..8));
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let result = runner.run(&sequences, |(provider, sequence)| {
        // Other ids each time, so that a shorter failure is found in the same database.
        let run = run.fetch_add(1, Ordering::Relaxed);
        block_in_place(|| Handle::current().block_on(check(&senders, provider, run, &sequence)))
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    // A key of parts is not stored beside them.
    let keys =
        "SELECT count(DISTINCT CASE WHEN idempotency_key = '' THEN integration_id || ':' || external_event_id
        ELSE idempotency_key END) - count(*) FROM events";
    assert_eq!(senders.platform.count(keys).await, 0);
}
