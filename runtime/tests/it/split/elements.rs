//! What becomes of each element of a request.

use grapnel_testing::WebhookRequest;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{element, events, post, request, start};
use crate::providers::fixtures::presets;
use crate::providers::sent::Senders;

#[tokio::test]
async fn an_element_is_a_duplicate_by_itself_and_the_others_of_its_request_are_new() {
    let (platform, _api) = start().await;
    let (one, two, three) = (element("1"), element("2"), element("3"));
    let first = post(&platform, &request(&[&one])).await;
    assert_eq!(first.status, 202, "{first:?}");
    let ids = events(&first);
    assert_eq!((ids.len(), ids[0].1, first.event_id()), (1, false, ids[0].0.clone()));

    let second = post(&platform, &request(&[&one, &two, &three])).await;
    assert_eq!(second.status, 202, "{second:?}");
    let all = events(&second);
    assert_eq!(all.iter().map(|event| event.1).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((&all[0].0, second.event_id()), (&ids[0].0, all[1].0.clone()), "the first new one");
    assert_eq!(second.json()["data"]["duplicate"], false);

    let third = post(&platform, &request(&[&three, &one])).await;
    assert_eq!((third.status, third.event_id()), (200, all[2].0.clone()), "{third:?}");
    assert_eq!(events(&third), [(all[2].0.clone(), true), (ids[0].0.clone(), true)]);
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 3);
    assert_eq!(platform.count("SELECT count(*) FROM event_requests").await, 1, "only the second was shared");
}

#[tokio::test]
async fn equal_elements_without_an_id_are_one_event_and_their_request_is_not_part_of_them() {
    let (platform, _api) = start().await;
    let answer = post(&platform, &request(&[r#"{"type":"t","n":1}"#, r#"{ "n":1, "type":"t" }"#])).await;
    let both = events(&answer);
    assert_eq!(
        (answer.status, &both[0].0, both[0].1, both[1].1),
        (202, &both[1].0, false, true),
        "{answer:?}"
    );
    let alone = post(&platform, r#"{"other":true,"items":[{"type":"t","n":1}],"account":"a-1"}"#).await;
    assert_eq!((alone.status, alone.event_id()), (200, both[0].0.clone()));
    // The subject is read from elsewhere, so it counts.
    let of_another = post(&platform, r#"{"account":"a-2","items":[{"type":"t","n":1}]}"#).await;
    assert_eq!(of_another.status, 202);
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 2);
}

#[tokio::test]
async fn an_element_that_is_no_event_is_stored_as_unmapped_with_a_note() {
    let (platform, _api) = start().await;
    let body = request(&[&element("1"), "7", r#"{"id":"2"}"#, &element("3")]);
    let answer = post(&platform, &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let ids = events(&answer);
    let mut seen = Vec::new();
    for (id, _) in &ids {
        let record = platform.get(&format!("/api/v1/events/{id}")).await.json();
        let note = record["data"]["webhook"]["leftOut"][0].clone();
        seen.push((record["data"]["event"]["eventType"].as_str().expect("a type").to_owned(), note));
    }
    let expected = [
        ("created".to_owned(), Value::Null),
        ("unmapped".to_owned(), json!({"field": "element", "reason": "must be an object"})),
        ("unmapped".to_owned(), json!({"field": "type", "reason": "is required"})),
        ("created".to_owned(), Value::Null),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_body_without_any_element_is_one_event() {
    let (platform, _api) = start().await;
    let refused = post(&platform, &request(&[])).await;
    assert_eq!((refused.status, refused.field()), (400, "type".to_owned()), "{refused:?}");
    let senders = Senders::start(&["line"]).await;
    let request = WebhookRequest::new("POST", "line")
        .header("content-type", "application/json")
        .body(r#"{"destination":"U1","events":[]}"#);
    let answer = senders.post(&request).await;
    assert!(answer.json()["data"]["events"].is_null(), "{answer:?}");
    assert_eq!(senders.record(&answer.event_id()).await["event"]["eventType"], "verify");
}

#[tokio::test]
async fn a_request_with_too_many_elements_is_refused_and_one_less_is_stored() {
    let (platform, _api) = start().await;
    let of = |count: usize| {
        let elements: Vec<String> = (0..count).map(|number| element(&number.to_string())).collect();
        request(&elements.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = post(&platform, &of(5_001)).await;
    assert_eq!((refused.status, refused.code()), (413, "PAYLOAD_TOO_LARGE".to_owned()));
    assert!(refused.text.contains("more than 5000 events"), "{}", refused.text);
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);
    let accepted = post(&platform, &of(5_000)).await;
    assert_eq!((accepted.status, events(&accepted).len()), (202, 5_000));
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 5_000);
}

#[tokio::test]
async fn an_event_shows_its_element_its_request_and_the_others_of_it() {
    let (platform, _api) = start().await;
    let body = request(&[&element("1"), &element("2"), &element("3")]);
    assert_eq!(post(&platform, &request(&[&element("2")])).await.status, 202);
    let answer = post(&platform, &body).await;
    let ids: Vec<String> = events(&answer).into_iter().map(|event| event.0).collect();
    let record = platform.get(&format!("/api/v1/events/{}", ids[2])).await.json();
    let data = &record["data"];
    assert_eq!(data["event"]["normalizedPayload"]["data"], json!({"id": "3", "type": "created", "n": 1.5}));
    assert_eq!(data["event"]["subject"], "a-1");
    assert_eq!(data["webhook"]["rawPayload"], serde_json::from_str::<Value>(&body).expect("JSON"));
    assert_eq!(data["webhook"]["requestHeaders"]["x-tag"], "of the request");
    assert_eq!(data["webhook"]["requestHeaders"]["x-token"], "[redacted]");
    let request = &data["request"];
    assert_eq!((&request["position"], &request["count"]), (&json!(2), &json!(3)));
    assert_eq!(request["events"], json!([ids[0], ids[2]]), "the second was stored before");
    let listed = platform.get("/api/v1/events?sortOrder=asc").await.json();
    let payloads: Vec<&Value> = listed["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| &event["normalizedPayload"]["data"]["id"])
        .collect();
    assert_eq!(payloads, ["2", "1", "3"]);
}

/// Leaves one item of each array that the preset splits.
fn first_element(body: &str, split: &Value) -> String {
    let mut json: Value = serde_json::from_str(body).expect("JSON");
    for path in split.as_array().expect("paths") {
        let mut place = Some(&mut json);
        for segment in path.as_str().expect("a path").split('/').skip(1) {
            place = match (place, segment) {
                (Some(Value::Array(items)), "*") => {
                    items.truncate(1);
                    items.first_mut()
                }
                (Some(value), name) => value.get_mut(name),
                (None, _) => None,
            };
        }
    }
    json.to_string()
}

#[tokio::test]
async fn of_every_preset_that_splits_a_request_nothing_is_lost_after_a_shorter_one() {
    let presets = presets();
    let split: Vec<_> = presets.iter().filter(|preset| preset.yaml["mapping"]["split"].is_array()).collect();
    assert!(split.len() >= 13, "{}", split.len());
    let names: Vec<&str> = split.iter().map(|preset| preset.name.as_str()).collect();
    let senders = Senders::start(&names).await;
    for preset in split {
        let name = &preset.name;
        let stored = format!(
            "SELECT count(*) FROM events e JOIN integrations i ON i.id = e.integration_id WHERE i.provider = '{name}'"
        );
        let whole = preset.request();
        let text = std::str::from_utf8(&whole.body).expect("text");
        let split = &preset.yaml["mapping"]["split"];
        let shorter = match preset.yaml["mapping"]["bodyField"].as_str() {
            Some(field) => {
                let mut fields = form_urlencoded::parse(text.as_bytes());
                let (_, json) = fields.find(|(name, _)| name == field).expect("the field");
                let json = first_element(&json, split);
                form_urlencoded::Serializer::new(String::new()).append_pair(field, &json).finish()
            }
            None => first_element(text, split),
        };
        let shorter = whole.clone().body(&shorter);
        // Notifications of this one have nothing to tell repeats by.
        let is_known = preset.yaml["mapping"]["externalEventId"] != json!(["request"]);
        let mut expected = 0;
        for (request, new) in
            [(&shorter, 1), (&whole, if is_known { 2 } else { 3 }), (&whole, if is_known { 0 } else { 3 })]
        {
            let answer = senders.post(request).await;
            assert!(matches!(answer.status, 200..=204), "{name}: {answer:?}");
            expected += new;
            assert_eq!(senders.platform.count(&stored).await, expected, "{name}: {request:?}");
        }
    }
}

/// The previous version stored a request as one event, under the id of the request or under its body.
#[tokio::test]
async fn a_request_with_one_element_that_the_previous_version_stored_is_recognized() {
    let canonical = br#"[{"objectId":1,"occurredAt":1769850000000,"subscriptionType":"t",},]"#;
    let digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, canonical));
    for (provider, key, one, two) in [
        (
            "hubspot",
            format!("payload:{digest}"),
            r#"[{"subscriptionType":"t","objectId":1,"occurredAt":1769850000000}]"#,
            r#"[{"subscriptionType":"t","objectId":2,"occurredAt":1769850000000}]"#,
        ),
        (
            "gocardless",
            "WB1".to_owned(),
            r#"{"events":[{"id":"EV1","resource_type":"payments"}],"meta":{"webhook_id":"WB1"}}"#,
            r#"{"events":[{"id":"EV2","resource_type":"payments"}],"meta":{"webhook_id":"WB1"}}"#,
        ),
    ] {
        let senders = Senders::start(&[provider]).await;
        let request = |body: &str| {
            let request = WebhookRequest::new("POST", provider).header("content-type", "application/json");
            let request = request.body(body);
            if provider == "hubspot" {
                request.header("x-hubspot-request-timestamp", "@nowMs@")
            } else {
                request
            }
        };
        let first = senders.post(&request(one)).await.event_id();
        let as_before = format!(
            "UPDATE idempotency_keys k
            SET key_hash = substr(encode(sha256(convert_to(e.integration_id || ':{key}', 'UTF8')), 'hex'), 1, 32)::uuid
            FROM events e WHERE e.id = k.event_id"
        );
        assert_eq!(senders.platform.database.execute(&as_before).await, 1);
        let again = senders.post(&request(one)).await;
        assert_eq!((again.status, again.event_id()), (200, first), "{provider}: {again:?}");
        assert_eq!(senders.post(&request(two)).await.status, 202, "{provider}");
        assert_eq!(senders.platform.count("SELECT count(*) FROM events").await, 2, "{provider}");
    }
}
