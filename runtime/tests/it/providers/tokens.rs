//! Tokens that are not in a header: they verify a webhook and are found nowhere afterwards.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use grapnel_testing::signer::Signer;
use grapnel_testing::{TestReceiver, WebhookRequest};
use serde_json::{Value, json};

use super::super::harness::Platform;
use super::fixtures::presets;
use super::{SendTo, documents};

struct TokenProvider {
    name: String,
    spec: Value,
    signer: Signer,
    request: WebhookRequest,
}

/// Returns the presets with a token that is not in a header, and one of a form and of a list of our own.
fn token_providers() -> Vec<TokenProvider> {
    let presets = presets().into_iter().filter(|preset| {
        let scheme = &preset.yaml["verification"];
        let from = scheme["signature"]["from"].as_str().unwrap_or_default();
        scheme["type"] == "token" && !from.starts_with("header")
    });
    let mut providers: Vec<TokenProvider> = presets
        .map(|preset| TokenProvider {
            spec: json!({"provider": preset.name, "verification": {}}),
            request: preset.request(),
            name: preset.name,
            signer: preset.signer,
        })
        .collect();
    assert!(providers.iter().any(|provider| provider.name == "microsoft-graph"));
    for (name, from, accept, deliver, content_type, body) in [
        (
            "form",
            "form:token",
            "form",
            "normalized",
            "application/x-www-form-urlencoded",
            "a=1&token=@signature@&b=2",
        ),
        (
            "raw",
            "json:/list/0/token",
            "json",
            "raw",
            "application/json",
            r#"{"list":[{"token":"@signature@"},{"token":"@signature@"}],"n":1.0}"#,
        ),
        (
            "event",
            "json:/token",
            "json",
            "cloudevents",
            "application/json",
            r#"{"data":{"n":1.0},"token":"@signature@"}"#,
        ),
    ] {
        let scheme = json!({"type": "token", "signature": {"from": from}});
        let spec = json!({
            "provider": "custom", "verification": {"scheme": scheme},
            // Neither a field of the event may carry it.
            "mapping": {"eventType": ["literal:t"], "subject": [from], "accept": [accept], "deliver": deliver},
        });
        let request = WebhookRequest::new("POST", name).header("content-type", content_type).body(body);
        providers.push(TokenProvider { name: name.to_owned(), spec, signer: Signer::new(&scheme), request });
    }
    providers
}

/// Returns the secret as text, and the parts of its base64 that do not depend on what is around it.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for skipped in 0..3 {
        let encoded = STANDARD_NO_PAD.encode([&[0; 2][..skipped], secret.as_bytes()].concat());
        forms.push(encoded[[0, 2, 3][skipped]..encoded.len() - 2].to_owned());
    }
    forms
}

#[tokio::test]
async fn a_token_outside_a_header_is_stored_shown_and_delivered_nowhere() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let providers = token_providers();
    let mut yaml = String::new();
    for provider in &providers {
        let mut spec = provider.spec.clone();
        spec["destinations"] =
            json!([{"name": "orders", "url": receiver.url(&format!("/{}", provider.name))}]);
        yaml += &documents(&provider.name, spec, &[&provider.signer.secret]);
    }
    platform.apply(&yaml).await;
    let _running = (platform.start(&["api"]), platform.start(&["worker"]));
    platform.wait_until_known(&providers[0].name).await;

    let mut shown = Vec::new();
    for provider in &providers {
        let request = provider.signer.sign(&provider.request, |signature| signature);
        // As an ingress does that passes the path on.
        let original = request.path();
        let request = request.header("x-original-uri", &original);
        let accepted = request.send(&platform).await;
        assert!(matches!(accepted.status, 200 | 202), "{}: {accepted:?}", provider.name);
        let event = platform.database.rows("SELECT id FROM events ORDER BY id DESC LIMIT 1").await;
        let event = event[0]["id"].as_str().expect("an id").to_owned();
        // Before the receiver is asked, so that the order of deliveries is that of the providers.
        let events = platform.count("SELECT count(*) FROM events").await;
        receiver.wait_for(usize::try_from(events).expect("a count")).await;
        for path in [format!("/api/v1/events/{event}"), format!("/api/v1/events/{event}/status")] {
            shown.push((provider, path.clone(), platform.get(&path).await.text));
        }
        // A repeat is recognized, although what was stored is not what came.
        if provider.name == "raw" {
            assert_eq!(request.send(&platform).await.status, 200);
        }
    }
    for path in ["/api/v1/events", "/api/v1/deliveries", "/api/v1/audit-entries", "/api/v1/integrations"] {
        shown.push((&providers[0], path.to_owned(), platform.get(path).await.text));
    }
    for provider in &providers {
        let delivery = receiver.deliveries_to(&format!("/{}", provider.name)).remove(0);
        shown.push((
            provider,
            "the delivery".to_owned(),
            format!("{:?} {}", delivery.headers, delivery.body),
        ));
    }
    let dump = Command::new("pg_dump").args(["-d", platform.database.url()]).output().expect("pg_dump");
    assert!(dump.status.success());
    shown.push((
        &providers[0],
        "the database".to_owned(),
        String::from_utf8_lossy(&dump.stdout).into_owned(),
    ));
    for (provider, place, text) in &shown {
        let secret = &provider.signer.secret;
        let mut forms = forms(secret);
        forms.push(hex::encode(secret));
        for form in forms {
            assert!(!text.contains(&form), "the token of {} is in {place}: {text}", provider.name);
        }
    }

    // Everything else is as it came.
    let raw = receiver.deliveries_to("/raw").remove(0);
    let stars = "*".repeat(providers[0].signer.secret.len());
    assert_eq!(raw.body, format!(r#"{{"list":[{{"token":"{stars}"}},{{"token":"{stars}"}}],"n":1.0}}"#));
    let form = receiver.deliveries_to("/form").remove(0).json();
    assert_eq!(form["data"], json!({"a": "1", "token": stars, "b": "2"}));
    let event = receiver.deliveries_to("/event").remove(0).json();
    assert_eq!(event["data"], json!({"data": {"n": 1.0}, "token": stars}));
}
