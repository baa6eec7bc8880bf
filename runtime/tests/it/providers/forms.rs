//! Forms whose content is in a field, and forms with parts.

use grapnel_testing::signer::Signer;
use grapnel_testing::{ACME_SECRET, TestReceiver, WebhookRequest};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::harness::{Answer, Platform, sign};
use super::fixtures::presets;
use super::{SendTo, documents};

const FORM: &str = "application/x-www-form-urlencoded";

fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn signer(provider: &str) -> Signer {
    presets().into_iter().find(|preset| preset.name == provider).expect("a preset").signer
}

/// Starts an api and a worker with Integrations of presets: their route, preset and form of delivery.
async fn start(receiver: &TestReceiver, routes: &[(&str, &str, &str)]) -> (Platform, impl Sized + use<>) {
    let platform = Platform::new().await;
    let document = |(route, provider, deliver): &(&str, &str, &str)| {
        let destination = json!({"name": "orders", "url": receiver.url(&format!("/{route}"))});
        let spec = json!({
            "provider": provider, "verification": {}, "mapping": {"deliver": deliver},
            "destinations": [destination],
        });
        documents(route, spec, &[&signer(provider).secret])
    };
    platform.apply(&routes.iter().map(document).collect::<String>()).await;
    let running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known(routes[0].0).await;
    (platform, running)
}

async fn delivered_to(receiver: &TestReceiver, path: &str, count: usize) -> (String, String) {
    let deliveries = receiver.wait_for(count).await;
    let delivery = deliveries.iter().find(|delivery| delivery.path == path).expect("a delivery");
    (delivery.body.clone(), delivery.header("content-type").to_owned())
}

#[tokio::test]
async fn json_in_a_form_of_github_is_delivered_normalized_and_the_form_raw() {
    let receiver = TestReceiver::new().await;
    let routes =
        [("github", "github", "normalized"), ("raw", "github", "raw"), ("ce", "github", "cloudevents")];
    let (platform, _running) = start(&receiver, &routes).await;
    let signer = signer("github");
    let payload = r#"{ "ref":"refs/heads/é & ü=1", "repository":{"full_name":"octo/hello"}, "n":12345678901234567890.10 }"#;
    let post = async |route: &str, content_type: &str, body: &str, id: &str| {
        let request = WebhookRequest::new("POST", route)
            .header("content-type", content_type)
            .header("x-github-event", "push")
            .header("x-github-delivery", id)
            .body(body);
        signer.sign(&request, |signature| signature).send(&platform).await
    };
    let body = form(&[("payload", payload)]);
    for (number, (route, _, _)) in routes.iter().enumerate() {
        let accepted = post(route, FORM, &body, "d-1").await;
        assert_eq!(accepted.status, 202, "{route}: {accepted:?}");
        let record = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
        assert_eq!(record["data"]["event"]["subject"], "octo/hello", "{record}");
        let (delivered, content_type) = delivered_to(&receiver, &format!("/{route}"), number + 1).await;
        match *route {
            "raw" => assert_eq!((delivered, content_type.as_str()), (body.clone(), FORM)),
            "ce" => assert!(delivered.ends_with(&format!(r#""data":{payload}}}"#)), "{delivered}"),
            _ => {
                let beginning = r#"{"provider":"github","eventType":"push","externalEventId":"d-1","data":"#;
                assert_eq!(delivered, format!("{beginning}{payload}}}"));
                let shown = &record["data"]["event"]["normalizedPayload"];
                assert_eq!(*shown, serde_json::from_str::<Value>(&delivered).expect("JSON"));
            }
        }
    }
    // The other content type is read as before; a form without the field is delivered as a form.
    let accepted = post("github", "application/json", payload, "d-2").await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(post("github", FORM, "other=1", "d-3").await.status, 202);
    let deliveries = receiver.wait_for(5).await;
    assert!(
        deliveries.iter().any(|delivery| delivery.body.ends_with(&format!(r#""d-2","data":{payload}}}"#)))
    );
    assert!(deliveries.iter().any(|delivery| delivery.body.ends_with(r#""d-3","data":{"other":"1"}}"#)));
    let refused = post("github", FORM, "payload=%7B", "d-4").await;
    assert_eq!((refused.status, refused.field().as_str()), (400, "body"), "{refused:?}");
    let refused = post("github", "text/plain", payload, "d-5").await;
    assert_eq!(refused.status, 415);
}

#[tokio::test]
async fn events_interactions_and_commands_of_slack_are_events() {
    let receiver = TestReceiver::new().await;
    let (platform, _running) = start(&receiver, &[("slack", "slack", "normalized")]).await;
    let signer = signer("slack");
    let post = async |content_type: &str, body: &str| {
        let request = WebhookRequest::new("POST", "slack")
            .header("content-type", content_type)
            .header("x-slack-request-timestamp", "@now@")
            .body(body);
        let answer = signer.sign(&request, |signature| signature).send(&platform).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{body}");
    };
    let event = r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"message","channel":"C1"}}"#;
    let interaction =
        r#"{"type":"block_actions","trigger_id":"t.1","channel":{"id":"C2"},"actions":[{"value":"a&b"}]}"#;
    post("application/json", event).await;
    post(FORM, &form(&[("payload", interaction)])).await;
    post(FORM, &form(&[("payload", interaction)])).await;
    post(FORM, &form(&[("payload", &interaction.replace("t.1", "t.2"))])).await;
    post(
        FORM,
        &form(&[("command", "/todo"), ("text", "a + b"), ("trigger_id", "t.3"), ("channel_id", "C3")]),
    )
    .await;
    let mut delivered: Vec<Value> =
        receiver.wait_for(4).await.iter().map(grapnel_testing::Delivery::json).collect();
    delivered.sort_by_key(|event| event["eventType"].to_string() + &event["data"]["trigger_id"].to_string());
    let types: Vec<&str> = delivered.iter().filter_map(|event| event["eventType"].as_str()).collect();
    assert_eq!(types, ["/todo", "block_actions", "block_actions", "message"]);
    let command = json!({"command": "/todo", "text": "a + b", "trigger_id": "t.3", "channel_id": "C3"});
    assert_eq!((&delivered[0]["externalEventId"], &delivered[0]["data"]), (&json!("t.3"), &command));
    assert_eq!(delivered[1]["data"], serde_json::from_str::<Value>(interaction).expect("JSON"));
    assert_eq!(delivered[3]["externalEventId"], "Ev1");
    let subjects = platform.get("/api/v1/events?provider=slack").await.json();
    let mut subjects: Vec<&str> = subjects["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|event| event["subject"].as_str())
        .collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["C1", "C2", "C2", "C3"], "a repeated interaction is one event");
}

fn part(disposition: &str, value: &str) -> String {
    format!("--@b@\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
}

/// Posts a form with parts, signed as Acme signs.
async fn post_parts(platform: &Platform, route: &str, boundary: &str, parts: &[String]) -> (Answer, String) {
    let body = (parts.concat() + "--@b@--\r\n").replace("@b@", boundary);
    let request = WebhookRequest::new("POST", route)
        .header("content-type", &format!("multipart/form-data; boundary=\"{boundary}\""))
        .header("x-sig", &sign(body.as_bytes()))
        .body(&body);
    (request.send(platform).await, body)
}

#[tokio::test]
async fn text_fields_of_a_form_with_parts_are_its_payload_and_files_are_counted() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let spec = |route: &str, mapping: Value| {
        json!({
            "provider": "custom",
            "verification": {"scheme": {"type": "hmac", "message": "{body}", "signature": {"from": "header:x-sig"}}},
            "mapping": mapping,
            "destinations": [{"name": "orders", "url": receiver.url(&format!("/{route}"))}],
        })
    };
    let fields = json!({"eventType": ["form:kind"], "subject": ["form:to"], "accept": ["multipart"]});
    let raw = json!({"eventType": ["form:kind"], "accept": ["multipart"], "deliver": "raw"});
    let inner = json!({"eventType": ["/event"], "accept": ["multipart"], "bodyField": "json"});
    let yaml: String = [("parts", fields), ("raw", raw), ("json", inner)]
        .map(|(route, mapping)| documents(route, spec(route, mapping), &[ACME_SECRET]))
        .concat();
    platform.apply(&yaml).await;
    let _running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known("parts").await;

    let parts = [
        part("name=\"kind\"", "inbound"),
        part("name=\"to\"", "é & b"),
        part("name=\"file\"; filename=\"a.txt\"", "--@b@x is no boundary"),
        part("name=\"to\"", ""),
        part("name=\"json\"", r#"{"event":"signed","n":1.50}"#),
    ];
    let (accepted, _) = post_parts(&platform, "parts", "b-1", &parts).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let (delivered, _) = delivered_to(&receiver, "/parts", 1).await;
    let expected = json!({
        "provider": "custom", "eventType": "inbound", "externalEventId": null,
        "data": {"kind": "inbound", "to": ["é & b", ""], "json": r#"{"event":"signed","n":1.50}"#},
    });
    assert_eq!(serde_json::from_str::<Value>(&delivered).expect("JSON"), expected);
    let record = platform.get(&format!("/api/v1/events/{}", accepted.event_id())).await.json();
    assert_eq!(record["data"]["event"]["normalizedPayload"], expected);
    let files = "SELECT count(*) FROM audit_entries WHERE action = 'webhook.received' AND entity_id = '$id'
        AND details::jsonb -> 'files' = '[{\"field\": \"file\", \"name\": \"a.txt\", \"size\": 21}]'";
    assert_eq!(platform.count(&files.replace("$id", &accepted.event_id())).await, 1);
    // Only the boundary is another one: the same event. Another file is another event.
    let mut again = parts.clone();
    again[2] = part("name=\"file\"; filename=\"a.txt\"", "--b-1x is no boundary");
    assert_eq!(post_parts(&platform, "parts", "b-2", &again).await.0.status, 200);
    again[2] = part("name=\"file\"; filename=\"a.txt\"", "another text");
    assert_eq!(post_parts(&platform, "parts", "b-2", &again).await.0.status, 202);

    let (accepted, body) = post_parts(&platform, "raw", "b-3", &parts).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let (delivered, content_type) = delivered_to(&receiver, "/raw", 3).await;
    assert_eq!((delivered, content_type.as_str()), (body, "multipart/form-data; boundary=\"b-3\""));
    let (accepted, _) = post_parts(&platform, "json", "b-4", &parts).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let (delivered, _) = delivered_to(&receiver, "/json", 4).await;
    assert!(
        delivered
            .ends_with(r#""eventType":"signed","externalEventId":null,"data":{"event":"signed","n":1.50}}"#)
    );

    let (refused, _) = post_parts(&platform, "parts", "b-5", &vec![parts[0].clone(); 257]).await;
    assert_eq!((refused.status, refused.field().as_str()), (400, "body"), "{refused:?}");
    assert_eq!(refused.json()["error"]["message"], "body: there are too many parts");
}
