//! Every preset: its fixture is signed as the provider signs, posted, and becomes the events that the preset expects.

use std::path::Path;

use grapnel_testing::signer::{Signer, flip};
use grapnel_testing::{PUBLIC_URL, WebhookRequest};
use serde_json::{Value, json};

use super::super::harness::Platform;
use super::{SendTo, documents};

pub(crate) struct Preset {
    pub(crate) name: String,
    pub(crate) yaml: Value,
    pub(crate) signer: Signer,
}

/// Returns the presets whose signature is expressed as data.
pub(crate) fn presets() -> Vec<Preset> {
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
    pub(crate) fn request(&self) -> WebhookRequest {
        let fixture = &self.yaml["fixture"];
        let mut request =
            WebhookRequest::new("POST", &self.name).body(fixture["body"].as_str().expect("a body"));
        request.query = fixture["query"].as_str().map(str::to_owned);
        for (name, value) in fixture["headers"].as_object().expect("headers") {
            request = request.header(name, value.as_str().expect("a text"));
        }
        request
    }

    /// Returns the events of the fixture's request, in the order of the document.
    pub(crate) fn events(&self) -> Vec<&Value> {
        let fixture = &self.yaml["fixture"];
        fixture["events"].as_array().map_or_else(|| vec![&fixture["event"]], |events| events.iter().collect())
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
        check_events(&platform, preset).await;
    }
    let expected: usize = presets.iter().map(|preset| preset.events().len()).sum();
    assert_eq!(platform.count("SELECT count(*) FROM events").await, expected as i64);
}

async fn check_events(platform: &Platform, preset: &Preset) {
    let events = platform.get(&format!("/api/v1/events?sortOrder=asc&provider={}", preset.name)).await.json();
    let events = events["data"].as_array().expect("a list");
    let expected = preset.events();
    assert_eq!(events.len(), expected.len(), "{}", preset.name);
    for (event, expected) in events.iter().zip(expected) {
        for field in ["externalEventId", "eventType", "subject"] {
            assert_eq!(event[field], expected[field], "{}: {field} of {event}", preset.name);
        }
        match expected["occurredAt"].as_str() {
            Some(time) => assert_eq!(event["occurredAt"], time, "{}", preset.name),
            None => assert_eq!(event["occurredAt"], event["receivedAt"], "{}", preset.name),
        }
        assert_eq!(event["secretIndex"], 0);
    }
}
