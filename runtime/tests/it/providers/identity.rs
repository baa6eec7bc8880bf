//! Two webhooks that are different are two events, and one that is repeated is one.

use std::path::Path;

use grapnel_core::ids::IntegrationId;
use grapnel_store::integrations::{self, purge};
use grapnel_testing::WebhookRequest;
use serde_json::Value;
use uuid::Uuid;

use super::sent::{Senders, webhook};

fn gitlab(hook: &str, uuid: &str, body: &str) -> WebhookRequest {
    webhook("gitlab", body).header("x-gitlab-event", hook).header("x-gitlab-event-uuid", uuid)
}

fn cloud_event(id: &str, source: &str) -> WebhookRequest {
    let body = format!(r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"t","data":{{}}}}"#);
    webhook("cloudevents", &body)
}

fn binary_cloud_event(id: &str, source: &str) -> WebhookRequest {
    let event = webhook("cloudevents", r#"{"total":1}"#).header("ce-specversion", "1.0");
    event.header("ce-type", "t").header("ce-id", id).header("ce-source", source)
}

fn zendesk(invocation: &str, body: &str) -> WebhookRequest {
    webhook("zendesk", body).header("x-zendesk-webhook-invocation-id", invocation)
}

#[tokio::test]
async fn an_id_counts_only_for_the_occurrence() {
    let senders = Senders::start(&["gitlab", "cloudevents", "zendesk", "recurly"]).await;
    let note = r#"{"object_kind":"note"}"#;
    senders
        .are_different(&[
            gitlab("Merge Request Hook", "uuid-1", note),
            gitlab("Note Hook", "uuid-1", note),
            gitlab("Note Hook", "uuid-1", r#"{"object_kind":"note","id":2}"#),
            gitlab("Note Hook", "uuid-2", note),
            gitlab("Note Hook", "uuid-2", note).header("idempotency-key", "key-1"),
        ])
        .await;
    senders
        .are_different(&[
            cloud_event("1", "/a"),
            cloud_event("1", "/b"),
            cloud_event("/b", "1"),
            binary_cloud_event("2", "/a"),
            binary_cloud_event("2", "/b"),
        ])
        .await;
    let (open, solved) = (r#"{"id":"35436","status":"open"}"#, r#"{"id":"35436","status":"solved"}"#);
    senders.are_different(&[zendesk("i-1", open), zendesk("i-2", solved), zendesk("i-3", open)]).await;
    senders.are_different(&[webhook("zendesk", open), webhook("zendesk", solved)]).await;
    senders
        .are_different(&[
            webhook("recurly", r#"{"id":"r3","event_type":"created"}"#),
            webhook("recurly", r#"{"id":"r3","event_type":"updated"}"#),
        ])
        .await;
    let repeated = gitlab("Note Hook", "uuid-3", r#"{"id":3}"#).header("idempotency-key", "key-1");
    assert_eq!(
        senders.post(&repeated).await.json()["data"]["duplicate"],
        true,
        "the key is the occurrence's"
    );
    let event = senders.record(&senders.post(&cloud_event("1", "/a")).await.event_id()).await;
    assert_eq!(event["event"]["externalEventId"], "1");
}

#[tokio::test]
async fn without_an_id_all_that_came_counts() {
    let senders = Senders::start(&["zendesk"]).await;
    let bodies = [
        r#"{"type":"t","text":"pay 10 \ud83d"}"#,
        r#"{"type":"t","text":"pay 99 \ud83d"}"#,
        r#"{"type":"t","\ud83d":1}"#,
        r#"{"type":"t","\ud83e":1}"#,
        r#"{"\ud83d":{"type":"t"}}"#,
        r#"{"type":"t","a":2}"#,
        r#"{"type":"t","a":1,"a":2}"#,
    ];
    senders.are_different(&bodies.map(|body| webhook("zendesk", body))).await;
    let spaced = webhook("zendesk", r#"{ "a" : 2, "type" : "t" }"#);
    assert_eq!(senders.post(&spaced).await.json()["data"]["duplicate"], true, "equal JSON is the same");
}

/// Every preset without an id, and every header that its type or its subject is first read from.
#[tokio::test]
async fn without_an_id_the_type_and_the_subject_in_headers_count() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/core/presets");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a file");
        let preset: Value = serde_saphyr::from_str(&text).expect("YAML");
        let has_id = !preset["mapping"]["externalEventId"].is_null();
        let is_data = !preset["verification"]["type"].as_str().expect("a type").starts_with("builtin:");
        if is_data && !has_id {
            all.push(preset);
        }
    }
    let name = |preset: &Value| preset["provider"].as_str().expect("a name").to_owned();
    let names: Vec<String> = all.iter().map(name).collect();
    let senders = Senders::start(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut changed = 0;
    for preset in &all {
        let fixture = &preset["fixture"];
        let mut request =
            WebhookRequest::new("POST", &name(preset)).body(fixture["body"].as_str().expect("a body"));
        request.query = fixture["query"].as_str().map(str::to_owned);
        for (header, value) in fixture["headers"].as_object().expect("headers") {
            request = request.header(header, value.as_str().expect("a text"));
        }
        let before = senders.platform.count("SELECT count(*) FROM events").await;
        let events = fixture["events"].as_array().map_or(1, Vec::len);
        let mut expected = before + i64::try_from(events).expect("a count");
        assert!(senders.post(&request).await.status < 300, "{request:?}");
        let sources = [&preset["mapping"]["eventType"], &preset["mapping"]["subject"]];
        let sources = sources.into_iter().filter_map(|sources| sources[0].as_str());
        for header in sources.filter_map(|source| source.strip_prefix("header:")) {
            let mut other = request.clone();
            other.headers.retain(|(name, _)| name != header);
            assert!(senders.post(&other.header(header, "other.kind")).await.status < 300, "{request:?}");
            expected += 1;
            changed += 1;
        }
        assert!(senders.post(&request).await.status < 300, "{request:?}");
        let events = senders.platform.count("SELECT count(*) FROM events").await;
        assert_eq!(events, expected, "{}", name(preset));
    }
    assert!(changed > 0);
}

#[tokio::test]
async fn an_id_that_is_too_long_is_left_out_and_counts_all_the_same() {
    let senders = Senders::start(&["gitlab"]).await;
    let with_key =
        |key: &str| webhook("gitlab", "{}").header("x-gitlab-event", "t").header("idempotency-key", key);
    let long = "x".repeat(513);
    senders.are_different(&[with_key(&long), with_key(&format!("{long}y")), with_key(&long[1..])]).await;
    let record = senders.record(&senders.post(&with_key(&long)).await.event_id()).await;
    assert_eq!(record["event"]["externalEventId"], Value::Null);
    assert_eq!(record["webhook"]["leftOut"][0]["field"], "externalEventId", "{record}");
    let kept = senders.record(&senders.post(&with_key(&long[1..])).await.event_id()).await;
    assert_eq!(kept["event"]["externalEventId"], long[1..]);
    assert_eq!(kept["webhook"]["leftOut"], Value::Null, "{kept}");
}

#[tokio::test]
async fn no_key_outlives_a_deleted_history() {
    let senders = Senders::start(&["gitlab"]).await;
    let platform = &senders.platform;
    senders
        .are_different(&[
            gitlab("Note Hook", "uuid-1", "{}"),
            gitlab("Note Hook", "uuid-1", r#"{"a":1,"a":2}"#),
            gitlab("Note Hook", "uuid-1", "{}").header("idempotency-key", "key-1"),
            gitlab("Note Hook", "uuid-1", "{}").header("idempotency-key", &"x".repeat(513)),
        ])
        .await;
    assert_eq!(platform.count("SELECT count(*) FROM idempotency_keys").await, 4);
    let rows = platform.database.rows("SELECT id FROM integrations").await;
    let id: Uuid = rows[0]["id"].as_str().expect("an id").parse().expect("a UUID");
    integrations::remove(&platform.db, IntegrationId::new(id), "test").await.expect("a commit");
    purge::purge(&platform.db, IntegrationId::new(id), "test").await.expect("a record");
    platform.wait_for_count("SELECT count(*) FROM purges", 0).await;
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);
    assert_eq!(platform.count("SELECT count(*) FROM idempotency_keys").await, 0);
}

/// Gives the stored webhooks the keys that the previous version gave them. `name` is the part after the integration's id.
async fn as_stored_before(senders: &Senders, name: &str) {
    let sql = format!(
        "UPDATE idempotency_keys k
        SET key_hash = substr(encode(sha256(convert_to(e.integration_id || ':{name}', 'UTF8')), 'hex'), 1, 32)::uuid
        FROM events e WHERE e.id = k.event_id"
    );
    senders.platform.database.execute(&sql).await;
}

#[tokio::test]
async fn what_the_previous_version_stored_is_recognized_and_nothing_else_is_taken_for_it() {
    let canonical = hex::encode(ring::digest::digest(&ring::digest::SHA256, br#"{"id":7,}"#));
    let payload = format!("payload:{canonical}");
    let woocommerce = |topic: &str| webhook("woocommerce", r#"{"id":7}"#).header("x-wc-webhook-topic", topic);
    let half = |body: &str| webhook("zendesk", body);
    let docusign = |envelope: &str| {
        webhook(
            "docusign",
            &format!(r#"{{"event":"t","retryCount":2,"data":{{"envelopeId":"{envelope}"}}}}"#),
        )
    };
    let counted = br#"{"data":{"envelopeId":"e-1",},"event":"t","retryCount":2,}"#;
    let counted = format!("payload:{}", hex::encode(ring::digest::digest(&ring::digest::SHA256, counted)));
    let lost = hex::encode(ring::digest::digest(&ring::digest::SHA256, br#"{"text":,}"#));
    let lost = format!("payload:{lost}");
    for (provider, key, stored, others) in [
        ("woocommerce", payload.as_str(), woocommerce("order.created"), vec![woocommerce("order.updated")]),
        (
            "gitlab",
            "uuid-1",
            gitlab("Note Hook", "uuid-1", "{}"),
            vec![gitlab("Issue Hook", "uuid-1", "{}"), gitlab("Note Hook", "uuid-1", r#"{"id":1}"#)],
        ),
        ("cloudevents", "1", cloud_event("1", "/a"), vec![cloud_event("1", "/b")]),
        ("cloudevents", "2", binary_cloud_event("2", "/a"), vec![binary_cloud_event("2", "/b")]),
        ("zendesk", "35436", zendesk("i-1", r#"{"id":"35436"}"#), vec![zendesk("i-2", r#"{"id":"35436"}"#)]),
        ("docusign", &counted, docusign("e-1"), vec![docusign("e-2")]),
        ("zendesk", &lost, half(r#"{"text":"10 \ud83d"}"#), vec![half(r#"{"text":"99 \ud83d"}"#)]),
    ] {
        let senders = Senders::start_beside_an_older_worker(&[provider]).await;
        let first = senders.post(&stored).await.event_id();
        as_stored_before(&senders, key).await;
        let again = senders.post(&stored).await;
        assert_eq!(again.json()["data"]["duplicate"], true, "{stored:?}");
        assert_eq!(again.event_id(), first, "{stored:?}");
        senders.are_different(&others).await;
        assert_eq!(senders.post(&stored).await.event_id(), first, "{stored:?}");
    }
}

/// The previous version stored the token too.
#[tokio::test]
async fn a_blanked_token_does_not_hide_what_the_previous_version_stored() {
    let senders = Senders::start(&["figma"]).await;
    let body =
        |text: &str| format!(r#"{{"event_type":"t","passcode":"@signature@","text":"{text} \ud83d"}}"#);
    let first = senders.post(&webhook("figma", &body("10"))).await.event_id();
    let token = &senders.signers["figma"].secret;
    let blanked = "*".repeat(token.len());
    let stored = format!(
        "UPDATE events SET raw_body = convert_to(replace(convert_from(raw_body, 'UTF8'), '{blanked}', '{token}'), 'UTF8')
        WHERE convert_from(raw_body, 'UTF8') LIKE '%{blanked}%'"
    );
    assert_eq!(senders.platform.database.execute(&stored).await, 1);
    let canonical = format!(r#"{{"event_type":"t","passcode":"{token}","text":,}}"#);
    let digest = ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes());
    as_stored_before(&senders, &format!("payload:{}", hex::encode(digest))).await;
    assert_eq!(senders.post(&webhook("figma", &body("10"))).await.event_id(), first);
    senders.are_different(&[webhook("figma", &body("99"))]).await;
    assert_eq!(senders.platform.count("SELECT count(*) FROM events").await, 2);
}
