//! A secret is rotated without rejecting a webhook, and the previous one is reported once it is no longer needed.

use grapnel_crds::{Integration, VerificationStatus};
use grapnel_testing::{ACME_SECRET, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Installation, acme_spec, merged};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_and_the_previous_secret_are_both_accepted_while_both_are_named() {
    let installation = Installation::new().await;
    let api = installation.start_api();
    let _controller = installation.start_leader().await;
    let (previous, next) = ("the-secret-of-yesterday", "the-secret-of-tomorrow");
    installation.apply_secret("acme", next).await;
    installation.apply_secret("acme-previous", previous).await;
    let verification = json!({"verification": {
        "secretRef": {"name": "acme"}, "previousSecretRefs": [{"name": "acme-previous"}],
    }});
    installation.apply("orders", merged(acme_spec("acme"), verification)).await;
    installation.wait_until_ready("orders").await;
    wait_until("the api to know it", async || installation.post(api.port, "acme", next, "1").await == 202)
        .await;
    assert_eq!(installation.post(api.port, "acme", previous, "2").await, 202);
    assert_eq!(installation.post(api.port, "acme", "another secret", "3").await, 401);

    installation.apply("orders", acme_spec("acme")).await;
    wait_until("the previous one to be refused", async || {
        installation.post(api.port, "acme", previous, "4").await == 401
    })
    .await;
    assert_eq!(installation.post(api.port, "acme", next, "5").await, 202);
}

fn with_previous() -> Value {
    json!({"verification": {"secretRef": {"name": "acme"}, "previousSecretRefs": [{"name": "acme-previous"}]}})
}

async fn age(installation: &Installation, id: Uuid, hours: i32) {
    let update = format!(
        "UPDATE previous_secrets SET listed_at = now() - make_interval(hours => {hours})
        WHERE integration_id = '{id}'"
    );
    assert_eq!(installation.database.execute(&update).await, 1);
}

async fn use_secret(installation: &Installation, id: Uuid, secret: &str, hours_ago: i32) {
    let insert = format!(
        "INSERT INTO verification_secret_uses VALUES ('{id}', '{secret}', now() - make_interval(hours => {hours_ago}))
        ON CONFLICT (integration_id, secret) DO UPDATE SET last_used_at = excluded.last_used_at"
    );
    installation.database.execute(&insert).await;
}

async fn is_listed(installation: &Installation, id: Uuid) -> bool {
    let count = format!("SELECT count(*) FROM previous_secrets WHERE integration_id = '{id}'");
    installation.database.count(&count).await == 1
}

fn verification(object: &Integration) -> Option<VerificationStatus> {
    object.status.as_ref().and_then(|status| status.verification.clone())
}

async fn wait_until_reported(installation: &Installation, expected: &[&str]) -> VerificationStatus {
    let mut last = VerificationStatus::default();
    wait_until("the unused secrets to be reported", async || {
        last = installation.get("orders").await.as_ref().and_then(verification).unwrap_or_default();
        last.unused_previous_secrets.iter().map(|secret| secret.name.as_str()).eq(expected.iter().copied())
    })
    .await;
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_previous_secret_that_verifies_nothing_for_a_day_is_reported_once() {
    let installation = Installation::new().await;
    let mut controller = installation.start_leader_in("pod-1").await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply_secret("acme-previous", "the-secret-of-yesterday").await;
    let id = installation.apply("orders", merged(acme_spec("acme"), with_previous())).await.id();
    installation.wait_until_ready("orders").await;
    wait_until("it to be recorded as listed", async || is_listed(&installation, id).await).await;

    // It was listed long enough without being used, and the current one verifies webhooks.
    age(&installation, id, 25).await;
    use_secret(&installation, id, "acme/secret", 1).await;
    let unused = wait_until_reported(&installation, &["acme-previous"]).await;
    let first = &unused.unused_previous_secrets[0];
    assert_eq!((first.key.as_str(), &first.last_used_time), ("secret", &None));
    assert!(unused.message.is_some_and(|message| message.contains("spec.verification.previousSecretRefs")));
    wait_until("the Event", async || {
        let reasons = installation.event_reasons("orders").await;
        reasons.iter().filter(|reason| *reason == "PreviousSecretUnused").count() == 1
    })
    .await;
    installation.wait_until_ready("orders").await;

    // A new process reports nothing again.
    controller.kill();
    let controller = installation.start_leader_in("pod-1").await;
    wait_until("two polls and three ticks", async || {
        controller.counter("grapnel_controller_scale_tick_duration_seconds_count", &[], &[]).await >= 4
    })
    .await;
    assert_eq!(controller.api_writes().await, 0);

    // It verifies a webhook after all, and later none for a day.
    use_secret(&installation, id, "acme-previous/secret", 0).await;
    wait_until_reported(&installation, &[]).await;
    use_secret(&installation, id, "acme-previous/secret", 24).await;
    let unused = wait_until_reported(&installation, &["acme-previous"]).await;
    assert!(unused.unused_previous_secrets[0].last_used_time.is_some());

    // A secret that is not listed is not reported, and once it is listed again its time starts over.
    installation.apply("orders", acme_spec("acme")).await;
    wait_until("it to be no longer reported", async || {
        installation.get("orders").await.as_ref().and_then(verification).is_none()
    })
    .await;
    wait_until("it to be no longer listed", async || !is_listed(&installation, id).await).await;
    installation.apply("orders", merged(acme_spec("acme"), with_previous())).await;
    wait_until("it to be listed again", async || is_listed(&installation, id).await).await;
    let fresh = "SELECT count(*) FROM previous_secrets WHERE listed_at > now() - interval '5 minutes'";
    assert_eq!(installation.database.count(fresh).await, 1);
}
