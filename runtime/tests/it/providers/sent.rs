//! Presets on one platform, each with a signer as its provider has it.

use std::collections::BTreeMap;

use grapnel_testing::signer::Signer;
use grapnel_testing::{PUBLIC_URL, TestProcess, WebhookRequest};
use serde_json::{Value, json};

use super::super::harness::{Answer, Platform};
use super::handshakes::scheme;
use super::{SendTo, documents};

pub(crate) struct Senders {
    pub(crate) platform: Platform,
    pub(crate) signers: BTreeMap<String, Signer>,
    _api: TestProcess,
}

impl Senders {
    /// Starts an api with an Integration for each preset, at the route of its name.
    pub(crate) async fn start(providers: &[&str]) -> Self {
        Self::start_with(providers, |signer| signer.secret.clone()).await
    }

    /// Starts them beside a worker of before, so that events are stored as the previous version stored them.
    pub(crate) async fn start_beside_an_older_worker(providers: &[&str]) -> Self {
        let platform = Platform::new().await;
        platform.insert_older_worker(2).await;
        Self::start_on(platform, providers, |signer| signer.secret.clone()).await
    }

    /// `written` is how the secret is written in the Secret.
    pub(crate) async fn start_with(providers: &[&str], written: impl Fn(&Signer) -> String) -> Self {
        Self::start_on(Platform::new().await, providers, written).await
    }

    async fn start_on(
        mut platform: Platform,
        providers: &[&str],
        written: impl Fn(&Signer) -> String,
    ) -> Self {
        platform.set("GRAPNEL_PUBLIC_URL", PUBLIC_URL);
        let signers: BTreeMap<String, Signer> =
            providers.iter().map(|name| ((*name).to_owned(), Signer::new(&scheme(name)))).collect();
        let yaml: String = signers
            .iter()
            .map(|(name, signer)| {
                documents(name, json!({"provider": name, "verification": {}}), &[&written(signer)])
            })
            .collect();
        platform.apply(&yaml).await;
        let api = platform.start(&["api"]);
        platform.wait_until_known(providers[0]).await;
        Self { platform, signers, _api: api }
    }

    /// Signs and posts a webhook.
    pub(crate) async fn post(&self, request: &WebhookRequest) -> Answer {
        let signed = self.signers[&request.route].sign(request, |signature| signature);
        signed.send(&self.platform).await
    }

    /// Posts webhooks that are all different, and then each again.
    pub(crate) async fn are_different(&self, requests: &[WebhookRequest]) {
        let mut ids = Vec::new();
        for request in requests {
            let answer = self.post(request).await;
            assert_eq!(answer.json()["data"]["duplicate"], false, "{request:?}: {answer:?}");
            ids.push(answer.event_id());
        }
        for (request, id) in requests.iter().zip(&ids) {
            let again = self.post(request).await;
            assert_eq!((again.json()["data"]["duplicate"].as_bool(), &again.event_id()), (Some(true), id));
        }
    }

    /// Returns the record of an event.
    pub(crate) async fn record(&self, event_id: &str) -> Value {
        let record = self.platform.get(&format!("/api/v1/events/{event_id}")).await;
        assert_eq!(record.status, 200, "{record:?}");
        record.json()["data"].clone()
    }
}

/// Returns a webhook in JSON.
pub(crate) fn webhook(provider: &str, body: &str) -> WebhookRequest {
    let request = WebhookRequest::new("POST", provider).header("content-type", "application/json");
    match scheme(provider)["timestamp"]["from"].as_str().and_then(|from| from.strip_prefix("header:")) {
        Some(name) if scheme(provider)["timestamp"]["unit"] == "iso8601" => request.header(name, "@nowIso@"),
        Some(name) => request.header(name, "@now@"),
        None => request,
    }
    .body(body)
}
