//! The effect of an Integration's state and secrets on its route.

use grapnel_testing::{ACME_SECRET, TestReceiver, acme_event, acme_signature, wait_until};

use super::super::harness::{GLOBEX_TOKEN, Platform, destination, integration, sign};
use super::{assert_refused, globex_event, nowhere};

#[tokio::test]
async fn disabled_integration_is_404_until_it_is_active_again() {
    let platform = Platform::new().await;
    let in_state = |state: &str| integration("acme", &format!("  state: {state}\n"), &[nowhere()]);
    let _api = platform.start_api(&in_state("Active")).await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);

    platform.apply(&in_state("Disabled")).await;
    platform.wait_for_status("/api/v1/webhooks/acme", 404).await;
    assert_refused(&platform.post_acme(&acme_event("e-2")).await, 404, "NOT_FOUND");
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 1);

    platform.apply(&in_state("Active")).await;
    platform.wait_for_status("/api/v1/webhooks/acme", 401).await;
    assert_eq!(platform.post_acme(&acme_event("e-2")).await.status, 202);
}

#[tokio::test]
async fn paused_integration_accepts_and_delivers_once_it_is_active_again() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let in_state = |state: &str| {
        let orders = destination("orders", &receiver.url("/paused"));
        let other = destination("assets", &receiver.url("/other"));
        integration("acme", &format!("  state: {state}\n"), &[orders])
            + "---\n"
            + &integration("globex", "", &[other])
    };
    let _running = platform.start_api_and_worker(&in_state("DeliveryPaused")).await;

    let accepted = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    // Later events of another integration arrive, while the requeue bound is checked several times; this one does not.
    for number in 0..3 {
        let headers = [("x-globex-token", GLOBEX_TOKEN)];
        platform.post("/api/v1/webhooks/globex", &headers, &globex_event(&format!("g-{number}"))).await;
        receiver.wait_for(number + 1).await;
    }
    assert!(receiver.deliveries_to("/paused").is_empty());
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE status = 'pending'").await, 1);

    platform.apply(&in_state("Active")).await;
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 4).await;
    let deliveries = receiver.deliveries_to("/paused");
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].header("webhook-id"), accepted.event_id());
}

#[tokio::test]
async fn previous_secret_is_accepted_during_a_rotation_and_not_after_it() {
    const NEW_SECRET: &str = "acme-next-secret-55e0";
    let platform = Platform::new().await;
    let previous = |refs: &str| {
        let integration = integration("acme", "", &[nowhere()]);
        let verification = format!("secretRef: {{name: next, key: secret}}, previousSecretRefs: [{refs}]");
        integration.replace("secretRef: {name: acme-secrets, key: incoming}", &verification)
            + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: next, namespace: test}\n"
            + &format!("stringData: {{secret: {NEW_SECRET}}}\n")
    };
    let _api = platform.start_api(&previous("{name: acme-secrets, key: incoming}")).await;
    let body = acme_event("e-1");
    let post = async |signature: String| {
        platform.post("/api/v1/webhooks/acme", &[("x-acme-signature", &signature)], &body).await.status
    };
    let signed_with_new = || acme_signature(NEW_SECRET, body.as_bytes());
    assert_ne!(NEW_SECRET, ACME_SECRET);

    assert_eq!(post(signed_with_new()).await, 202);
    assert_eq!(post(sign(body.as_bytes())).await, 200);

    platform.apply(&previous("")).await;
    wait_until("the old secret to be refused", || async { post(sign(body.as_bytes())).await == 401 }).await;
    assert_eq!(post(signed_with_new()).await, 200);
}
