//! A secret that the provider sends in a handshake reaches the Secret of the Integration, with its owner's consent.

use grapnel_core::ids::IntegrationId;
use grapnel_core::sealing::SealingKeys;
use grapnel_crds::conditions::{self, condition};
use grapnel_crds::{Integration, names};
use grapnel_store::captured_secrets;
use grapnel_testing::{SEALING_KEYS, hmac_sha256, wait_until};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Installation, access};

const PLACEHOLDER: &str = "placeholder";

fn asana_spec() -> Value {
    json!({
        "provider": "asana",
        "verification": {"secretRef": {"name": "asana", "key": "hook"}},
        "destinations": [{"name": "tasks", "url": "https://tasks.example.com/hooks"}],
    })
}

/// Creates an Integration of Asana whose Secret does not have the real value yet.
async fn set_up(installation: &Installation) -> Uuid {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "asana", "annotations": {"kept": "yes"}},
        "stringData": {"hook": PLACEHOLDER, "other": "stays"},
    });
    let parameters = PatchParams::apply("kubectl").force();
    installation.secrets().patch("asana", &parameters, &Patch::Apply(&secret)).await.expect("apply a Secret");
    installation.apply("asana", asana_spec()).await;
    installation.wait_until_ready("asana").await.id()
}

/// Annotates a Secret with its owner's decision about a captured one.
pub(crate) async fn consent(installation: &Installation, secret: &str, value: &str) {
    let patch = json!({"metadata": {"annotations": {names::CAPTURE_ANNOTATION: value}}});
    let patched = installation.secrets().patch(secret, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.expect("annotate the Secret");
}

/// Returns the values of the keys, and whether the annotation is present.
async fn secret(installation: &Installation) -> (String, String, bool) {
    let secret = installation.secrets().get("asana").await.expect("read the Secret");
    assert_eq!(secret.annotations().get("kept").map(String::as_str), Some("yes"));
    let annotated = secret.annotations().contains_key(names::CAPTURE_ANNOTATION);
    let data = secret.data.expect("data");
    let text = |key: &str| String::from_utf8(data[key].0.clone()).expect("a text");
    assert_eq!(data.len(), 2);
    (text("hook"), text("other"), annotated)
}

fn holds(value: &str, annotated: bool) -> (String, String, bool) {
    (value.to_owned(), "stays".to_owned(), annotated)
}

/// Inserts a captured secret, as the api does after a handshake.
pub(crate) async fn capture(installation: &Installation, id: Uuid, secret: &str) {
    let keys = SealingKeys::parse(SEALING_KEYS).expect("keys");
    let sealed = keys.seal(id.as_bytes(), secret.as_bytes());
    assert!(
        captured_secrets::insert(&installation.db, IntegrationId::new(id), "hook-secret", &sealed)
            .await
            .expect("a row")
    );
}

async fn is_pending(installation: &Installation, id: Uuid) -> bool {
    captured_secrets::find(&installation.db, IntegrationId::new(id)).await.expect("an answer").is_some()
}

fn condition(object: &Integration) -> Option<(String, String)> {
    let status = object.status.as_ref()?;
    let found = conditions::find(&status.conditions, condition::CAPTURE_WAITING)?;
    Some((found.reason.clone(), found.message.clone()))
}

pub(crate) async fn wait_until_settled(installation: &Installation, name: &str, id: Uuid) {
    wait_until("the captured secret to be settled", async || {
        let object = installation.get(name).await.expect("the object");
        condition(&object).is_none() && !is_pending(installation, id).await
    })
    .await;
}

async fn post(installation: &Installation, port: u16, headers: &[(&str, &str)], body: &str) -> u16 {
    let url = format!("http://127.0.0.1:{port}/api/v1/webhooks/asana");
    let request =
        installation.http.post(url).header("content-type", "application/json").body(body.to_owned());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.map_or(0, |answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_secret_waits_for_consent_and_then_verifies_webhooks() {
    let installation = Installation::new().await;
    let api = installation.start_api();
    let controller = installation.start_leader().await;
    let id = set_up(&installation).await;
    let given = "the-hook-secret-of-asana-1f9c";
    wait_until("the handshake to be answered", async || {
        post(&installation, api.port, &[("x-hook-secret", given)], "{}").await == 200
    })
    .await;
    let object = installation.wait_for_condition("asana", "CaptureWaiting", "True", "ConsentMissing").await;
    let (_, message) = condition(&object).expect("the condition");
    assert!(message.contains("annotate the Secret asana with grapnel.dev/capture=true"), "{message}");
    installation.wait_until_ready("asana").await;
    wait_until("the Event", async || {
        installation.event_reasons("asana").await.contains(&"ConsentMissing".to_owned())
    })
    .await;
    assert_eq!(secret(&installation).await, holds(PLACEHOLDER, false));

    consent(&installation, "asana", "true").await;
    wait_until_settled(&installation, "asana", id).await;
    assert_eq!(secret(&installation).await, holds(given, false));
    let body =
        r#"{"events":[{"action":"changed","created_at":"2026-01-31T09:00:00.000Z","resource":{"gid":"1"}}]}"#;
    let signature = hmac_sha256(given, body.as_bytes());
    wait_until("a webhook that is signed with it to be accepted", async || {
        post(&installation, api.port, &[("x-hook-signature", &signature)], body).await == 200
    })
    .await;
    wait_until("the Event", async || {
        installation.event_reasons("asana").await.contains(&"SecretCaptured".to_owned())
    })
    .await;
    let rows = installation.database.count("SELECT count(*) FROM events").await;
    assert_eq!(rows, 1, "the handshake is not an event");

    // One consent is valid for one secret: anyone who knows the URL can send a handshake.
    assert_eq!(post(&installation, api.port, &[("x-hook-secret", "another-secret")], "{}").await, 200);
    installation.wait_for_condition("asana", "CaptureWaiting", "True", "ConsentMissing").await;
    assert_eq!(secret(&installation).await, holds(given, false));
    consent(&installation, "asana", "discard").await;
    wait_until_settled(&installation, "asana", id).await;
    assert_eq!(secret(&installation).await, holds(given, false));
    assert!(!controller.log().contains(given) && !controller.log().contains("another-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_secret_that_is_already_in_its_secret_is_not_written_again() {
    let installation = Installation::new().await;
    let controller = installation.start_leader().await;
    let id = set_up(&installation).await;
    // As after a crash between the write of the Secret and the deletion of the row.
    let version = installation.secrets().get("asana").await.expect("the Secret").resource_version();
    capture(&installation, id, PLACEHOLDER).await;
    wait_until_settled(&installation, "asana", id).await;
    let after = installation.secrets().get("asana").await.expect("the Secret").resource_version();
    assert_eq!(after, version);
    assert!(controller.log().contains("a captured secret is no longer pending"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_secret_waits_for_its_secret_and_for_the_right_to_write_it() {
    let installation = Installation::new().await;
    let (platform, namespace) = (&installation.platform, Some(installation.namespace.as_str()));
    access::bind(&installation.client, platform, namespace, &access::rules_without_capture()).await;
    let _controller = installation.start_leader().await;
    let id = set_up(&installation).await;
    installation.secrets().delete("asana", &Default::default()).await.expect("delete the Secret");
    capture(&installation, id, "given").await;
    let object = installation.wait_for_condition("asana", "CaptureWaiting", "True", "SecretNotFound").await;
    let (_, message) = condition(&object).expect("the condition");
    assert!(message.contains("create the Secret asana"), "{message}");

    set_up(&installation).await;
    installation.wait_for_condition("asana", "CaptureWaiting", "True", "ConsentMissing").await;
    consent(&installation, "asana", "true").await;
    let object = installation.wait_for_condition("asana", "CaptureWaiting", "True", "SecretForbidden").await;
    let (_, message) = condition(&object).expect("the condition");
    assert!(message.contains("controller.captureSecrets"), "{message}");
    assert_eq!(secret(&installation).await, holds(PLACEHOLDER, true));
    assert!(is_pending(&installation, id).await);

    access::bind(&installation.client, platform, namespace, &access::rules_of_watched()).await;
    wait_until_settled(&installation, "asana", id).await;
    assert_eq!(secret(&installation).await, holds("given", false));
}
