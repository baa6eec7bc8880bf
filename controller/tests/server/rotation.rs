//! A secret is rotated without a webhook refused.

use serde_json::json;

use crate::harness::{Installation, acme_spec, merged, wait_for};

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
    wait_for("the api to know it", async || installation.post(api.port, "acme", next, "1").await == 202)
        .await;
    assert_eq!(installation.post(api.port, "acme", previous, "2").await, 202);
    assert_eq!(installation.post(api.port, "acme", "another secret", "3").await, 401);

    installation.apply("orders", acme_spec("acme")).await;
    wait_for("the previous one to be refused", async || {
        installation.post(api.port, "acme", previous, "4").await == 401
    })
    .await;
    assert_eq!(installation.post(api.port, "acme", next, "5").await, 202);
}
