//! Watching events.

use std::collections::BTreeSet;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use futures::{FutureExt, StreamExt};
use grapnel_core::delivery::state::NextState;
use grapnel_store::events::NewEvent;
use grapnel_testing::WAIT_TIMEOUT;
use jiff::Timestamp;
use serde_json::Value;
use tower::ServiceExt;
use uuid::Uuid;

use super::harness::{Api, KEY, event, for_destinations, later};
use crate::faults::within;

/// Events for one watcher in one second, and readings that are kept for one that is slow.
const MOST_AT_ONCE: usize = 50;
const KEPT: usize = 8;

/// One open stream.
struct Stream {
    body: BodyDataStream,
    text: String,
    /// The last id.
    id: String,
}

/// What a stream sends.
#[derive(Debug, PartialEq)]
enum Message {
    Event(Value),
    Gap(Value),
    /// The end of a reading.
    Seen,
}

impl Stream {
    async fn open(api: &Api, query: &str, last_event_id: Option<&str>) -> Self {
        let mut request = Request::get(format!("/stream/events{query}")).header("x-internal-api-key", KEY);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = api.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream =
            Self { body: response.into_body().into_data_stream(), text: String::new(), id: String::new() };
        if last_event_id.is_none() {
            assert_eq!(stream.next().await, Message::Seen);
        }
        stream
    }

    async fn next(&mut self) -> Message {
        within(WAIT_TIMEOUT, "a message", async {
            loop {
                if let Some((message, rest)) = self.text.split_once("\n\n") {
                    let (message, rest) = (message.to_owned(), rest.to_owned());
                    self.text = rest;
                    if let Some(message) = self.read(&message) {
                        return message;
                    }
                    continue;
                }
                let bytes = self.body.next().await.expect("more").expect("bytes");
                self.text.push_str(std::str::from_utf8(&bytes).expect("text"));
            }
        })
        .await
    }

    fn read(&mut self, message: &str) -> Option<Message> {
        let field =
            |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
        if let Some(id) = field("id:") {
            id.clone_into(&mut self.id);
            return Some(Message::Seen);
        }
        let data = || serde_json::from_str(field("data:").expect("data")).expect("JSON");
        match field("event:") {
            Some("event") => Some(Message::Event(data())),
            Some("gap") => Some(Message::Gap(data())),
            Some(other) => panic!("{other}"),
            // `retry`, and comments that keep it alive.
            None => None,
        }
    }

    /// Everything up to the end of the reading that has the first event or gap.
    async fn reading(&mut self) -> (Vec<Value>, Option<Value>) {
        let (mut events, mut gap) = (Vec::new(), None);
        loop {
            match self.next().await {
                Message::Event(event) => events.push(event),
                Message::Gap(value) => gap = Some(value),
                Message::Seen if events.is_empty() && gap.is_none() => {}
                Message::Seen => return (events, gap),
            }
        }
    }
}

fn ids(events: &[Value]) -> Vec<Uuid> {
    events.iter().map(|event| event["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")).collect()
}

#[tokio::test]
async fn new_events_and_what_becomes_of_them_are_sent() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    api.store(event(integration)).await;
    let mut stream = Stream::open(&api, "", None).await;
    let id = api.store(event(integration)).await;
    let (events, gap) = stream.reading().await;
    assert_eq!((ids(&events), gap), (vec![id], None));
    assert_eq!((&events[0]["status"], &events[0]["normalizedPayload"]), (&"pending".into(), &Value::Null));
    assert_eq!(events[0]["eventType"], "order.created");
    api.attempt(id, "orders", later()).await;
    let (events, _) = stream.reading().await;
    assert_eq!((ids(&events), &events[0]["status"]), (vec![id], &"retrying".into()));
    assert_eq!(events[0]["processingAttempts"], 1);
}

#[tokio::test]
async fn a_stream_goes_on_from_what_was_received() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let mut stream = Stream::open(&api, "", None).await;
    api.store(event(integration)).await;
    stream.reading().await;
    let seen = stream.id.clone();
    drop(stream);
    let missed = api.store(event(integration)).await;
    let mut stream = Stream::open(&api, "", Some(&seen)).await;
    assert_eq!(
        stream.reading().await.0.iter().map(|event| event["id"].clone()).collect::<Vec<_>>(),
        [Value::from(missed.to_string())]
    );

    let (at, snapshot) = seen.split_once('-').expect("a time");
    let long_ago = at.parse::<i64>().expect("a time") - 11 * 60 * 1000;
    let mut stream = Stream::open(&api, "", Some(&format!("{long_ago}-{snapshot}"))).await;
    let (events, gap) = stream.reading().await;
    assert!(events.is_empty());
    assert_eq!(gap, Some(serde_json::json!({"leftOut": 0, "notRead": null})));

    for id in ["7", "now", "1-2:1:"] {
        let request =
            Request::get("/stream/events").header("x-internal-api-key", KEY).header("last-event-id", id);
        let response = api.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(response.expect("an answer").status(), StatusCode::BAD_REQUEST, "{id}");
    }
    api.get("/stream/events?q=text").await.invalid("q");
    api.get("/stream/events?page=1").await.invalid("page");
}

#[tokio::test]
async fn an_event_that_is_committed_late_is_sent() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let mut stream = Stream::open(&api, "", None).await;
    let id = Uuid::now_v7();
    let mut late = api.database.begin().await;
    late.execute(&format!(
        "INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id, headers,
            raw_body, payload_key, payload_start, payload_length, idempotency_key)
        VALUES ('{id}', '{integration}', 'acme', 'late', now(), now(), 'c', '[]', '{{}}', 'data', 0, 2, 'late')"
    ))
    .await;
    let soon = api.store(event(integration)).await;
    assert_eq!(ids(&stream.reading().await.0), [soon]);
    assert_eq!(stream.next().await, Message::Seen);
    late.commit().await;
    assert_eq!(ids(&stream.reading().await.0), [id]);
}

#[tokio::test]
async fn a_stream_has_what_the_list_with_its_filters_has() {
    let api = Api::start().await;
    let (acme, other) =
        (api.integration("acme", &["orders", "billing"]).await, api.integration("other", &["orders"]).await);
    let mut streams = Vec::new();
    let queries = [
        "",
        "?integration=shop/acme",
        &format!("?integration={other}"),
        "?namespace=shop",
        "?namespace=zoo",
        "?provider=acme",
        "?provider=else",
        "?eventType=order.created",
        "?eventType=order.paid",
        "?subject=URGENT",
        "?destination=billing",
        "?destination=billing&status=failed",
        "?destination=orders&status=failed",
        "?status=failed",
        "?status=pending",
        "?status=filtered",
        "?httpStatus=500",
        "?httpStatus=500&destination=orders",
        "?externalEventId=ext-1",
        "?correlationId=corr-1",
        "?receivedFrom=2999-01-01T00:00:00Z",
        "?to=2001-01-01T00:00:00Z",
        "?from=2001-01-01T00:00:00Z",
    ];
    for query in queries {
        streams.push(Stream::open(&api, query, None).await);
    }
    let mut stored = vec![
        api.store(event(other)).await,
        api.store(NewEvent { event_type: "order.paid".into(), ..event(acme) }).await,
        api.store(NewEvent { subject: Some("very urgent".into()), ..event(acme) }).await,
        api.store(NewEvent { external_event_id: Some("ext-1".into()), ..event(acme) }).await,
        api.store(NewEvent { correlation_id: "corr-1".into(), ..event(acme) }).await,
        api.store(NewEvent {
            occurred_at: "2000-01-01T00:00:00Z".parse::<Timestamp>().expect("a time"),
            ..event(acme)
        })
        .await,
    ];
    let failed = api.store(for_destinations(event(acme), &["orders", "billing"])).await;
    api.attempt(failed, "billing", NextState::Failed).await;
    stored.push(failed);
    for (query, stream) in queries.iter().zip(&mut streams) {
        let listed: BTreeSet<Uuid> = api.all_ids(&format!("/events{query}")).await.into_iter().collect();
        let mut streamed = BTreeSet::new();
        while !listed.is_subset(&streamed) {
            streamed.extend(ids(&stream.reading().await.0));
        }
        // One more reading: nothing else has come, but what was in another status before.
        if !query.contains("status") && !query.contains("httpStatus") {
            assert_eq!(streamed, listed, "{query}");
        }
    }
    let nothing = &mut streams[queries.iter().position(|query| query.contains("zoo")).expect("there")];
    while let Some(message) = nothing.next().now_or_never() {
        assert_eq!(message, Message::Seen);
    }
}

#[tokio::test]
async fn what_is_left_out_is_counted() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let mut slow = Stream::open(&api, "", None).await;
    let mut stream = Stream::open(&api, "", None).await;
    let insert = |count: usize| {
        format!(
            "INSERT INTO events (id, integration_id, provider, event_type, occurred_at, received_at, correlation_id,
                headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
            SELECT uuidv7_now(), '{integration}', 'acme', 'many', now(), now(), 'c', '[]', '{{}}', 'data', 0, 2, n::text
            FROM generate_series(1, {count}) n"
        )
    };
    api.execute(&insert(MOST_AT_ONCE + 10)).await;
    let (events, gap) = stream.reading().await;
    assert_eq!(events.len(), MOST_AT_ONCE);
    assert_eq!(gap, Some(serde_json::json!({"leftOut": 10, "notRead": 0})));
    api.execute(&insert(600)).await;
    let (events, gap) = stream.reading().await;
    assert_eq!(events.len(), MOST_AT_ONCE);
    assert_eq!(gap, Some(serde_json::json!({"leftOut": 450, "notRead": 100})));

    // Nobody reads the slow one meanwhile.
    for _ in 0..=KEPT {
        assert_eq!(stream.next().await, Message::Seen);
    }
    let last = api.store(event(integration)).await;
    assert_eq!(ids(&stream.reading().await.0), [last]);
    let (mut events, mut not_read) = (0, 0);
    loop {
        match slow.next().await {
            Message::Event(event) if event["id"] == last.to_string() => break,
            Message::Event(_) => events += 1,
            Message::Gap(gap) => not_read += gap["notRead"].as_u64().expect("a number"),
            Message::Seen => {}
        }
    }
    assert_eq!((events, not_read), (0, 660));
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_those_who_watch() {
    const MOST_OF_ONE: usize = 250;
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let mut streams = Vec::new();
    for _ in 0..MOST_OF_ONE {
        streams.push(Stream::open(&api, "", None).await);
    }
    api.get("/stream/events").await.expect(StatusCode::TOO_MANY_REQUESTS);
    let id = api.store(event(integration)).await;
    for stream in &mut streams {
        assert_eq!(ids(&stream.reading().await.0), [id]);
    }
    drop(streams);
    let mut stream = Stream::open(&api, "", None).await;
    let id = api.store(event(integration)).await;
    assert_eq!(ids(&stream.reading().await.0), [id]);
}

#[tokio::test]
async fn who_comes_back_is_told_what_others_were_told_meanwhile() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let mut other = Stream::open(&api, "", None).await;
    let mut stream = Stream::open(&api, "", None).await;
    let told = api.store(event(integration)).await;
    assert_eq!(ids(&stream.reading().await.0), [told]);
    assert_eq!(ids(&other.reading().await.0), [told]);
    let seen = stream.id.clone();
    drop(stream);
    let missed = api.store(event(integration)).await;
    assert_eq!(ids(&other.reading().await.0), [missed]);
    // What was read is not there any more: only what is kept of it can be sent.
    api.execute(&format!("DELETE FROM events WHERE id = '{missed}'")).await;
    let mut stream = Stream::open(&api, "", Some(&seen)).await;
    assert_eq!(ids(&stream.reading().await.0), [missed]);
    let next = api.store(event(integration)).await;
    assert_eq!(ids(&stream.reading().await.0), [next]);
}
