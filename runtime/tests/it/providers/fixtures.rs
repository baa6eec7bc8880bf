//! Every preset: its fixture is signed as the provider signs, posted, and becomes the event that the preset expects.

use std::path::Path;

use grapnel_testing::signer::{Signer, flip};
use grapnel_testing::{PUBLIC_URL, WebhookRequest};
use serde_json::{Value, json};

use super::super::harness::Platform;
use super::{SendTo, documents};

pub(super) struct Preset {
    pub(super) name: String,
    pub(super) yaml: Value,
    pub(super) signer: Signer,
}

/// Returns the presets whose signature is expressed as data.
pub(super) fn presets() -> Vec<Preset> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/core/presets");
    let mut presets = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a file");
        let yaml: Value = serde_saphyr::from_str(&text).expect("YAML");
        if yaml["verification"]["type"].as_str().expect("a type").starts_with("builtin:") {
            continue;
        }
        let name = yaml["provider"].as_str().expect("a provider").to_owned();
        presets.push(Preset { name, signer: Signer::new(&yaml["verification"]), yaml });
    }
    presets
}

impl Preset {
    pub(super) fn request(&self) -> WebhookRequest {
        let fixture = &self.yaml["fixture"];
        let mut request =
            WebhookRequest::new("POST", &self.name).body(fixture["body"].as_str().expect("a body"));
        request.query = fixture["query"].as_str().map(str::to_owned);
        for (name, value) in fixture["headers"].as_object().expect("headers") {
            request = request.header(name, value.as_str().expect("a text"));
        }
        request
    }

    fn covers_body(&self) -> bool {
        let message = self.yaml["verification"]["message"].as_str().unwrap_or_default();
        message.contains("{body}") || message.contains("{form:sorted}")
    }
}

#[tokio::test]
async fn every_preset_accepts_its_providers_webhook_and_refuses_it_with_a_flipped_bit() {
    let presets = presets();
    assert!(presets.len() >= 40, "{}", presets.len());
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_PUBLIC_URL", PUBLIC_URL);
    let yaml: String = presets
        .iter()
        .map(|preset| {
            documents(
                &preset.name,
                json!({"provider": preset.name, "verification": {}}),
                &[&preset.signer.secret],
            )
        })
        .collect();
    platform.apply(&yaml).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_known(&presets[0].name).await;

    for preset in &presets {
        let name = &preset.name;
        let spoiled = preset.signer.sign(&preset.request(), flip).send(&platform).await;
        assert_eq!(spoiled.status, 401, "{name} with a flipped signature: {spoiled:?}");
        if preset.covers_body() {
            let mut changed = preset.signer.sign(&preset.request(), |signature| signature);
            let last = changed.body.iter().rposition(u8::is_ascii_alphanumeric).expect("a letter");
            changed.body[last] ^= 1;
            let changed = changed.send(&platform).await;
            assert_eq!(changed.status, 401, "{name} with a flipped body: {changed:?}");
        }
        let expected = preset.yaml["acknowledgement"]["status"].as_u64().unwrap_or(202);
        let accepted = preset.signer.sign(&preset.request(), |signature| signature).send(&platform).await;
        assert_eq!(u64::from(accepted.status), expected, "{name}: {accepted:?}");
        if let Some(body) = preset.yaml["acknowledgement"]["body"].as_str() {
            assert_eq!(accepted.text, body, "{name}");
        }
        check_event(&platform, preset).await;
    }
    assert_eq!(platform.count("SELECT count(*) FROM events").await, presets.len() as i64);
}

async fn check_event(platform: &Platform, preset: &Preset) {
    let events = platform.get(&format!("/api/v1/events?provider={}", preset.name)).await.json();
    let events = events["data"].as_array().expect("a list");
    assert_eq!(events.len(), 1, "{}", preset.name);
    let expected = &preset.yaml["fixture"]["event"];
    for field in ["externalEventId", "eventType", "subject"] {
        assert_eq!(events[0][field], expected[field], "{}: {field} of {}", preset.name, events[0]);
    }
    match expected["occurredAt"].as_str() {
        Some(time) => assert_eq!(events[0]["occurredAt"], time, "{}", preset.name),
        None => assert_eq!(events[0]["occurredAt"], events[0]["receivedAt"], "{}", preset.name),
    }
    assert_eq!(events[0]["secretIndex"], 0);
}
