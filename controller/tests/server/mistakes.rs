//! A mistake is reported in the same words by the API server, the controller, `grapnel dev` and
//! `grapnel-controller explain`.

use grapnel_crds::conditions;
use grapnel_testing::wait_until;
use serde_json::{Value, json};

use crate::harness::{Installation, acme_spec, merged};

fn manifest(installation: &Installation, spec: Value) -> Value {
    json!({
        "apiVersion": grapnel_crds::API_VERSION, "kind": grapnel_crds::KIND,
        "metadata": {"name": "orders", "namespace": installation.namespace}, "spec": spec,
    })
}

/// Runs `explain` and `dev` with a file that contains this object; returns whether they succeeded, and their output.
async fn check_offline(installation: &Installation, spec: Value) -> [(bool, String); 2] {
    let path = installation.directory.join("orders.yaml");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme", "namespace": installation.namespace},
        "stringData": {"secret": "a-secret"},
    });
    // JSON is valid YAML.
    std::fs::write(&path, format!("{}\n---\n{secret}\n", manifest(installation, spec)))
        .expect("write a file");
    let file = path.to_str().expect("a path in UTF-8");
    [
        installation.try_run("grapnel-controller", &["explain", file]).await,
        installation.try_run("grapnel", &["dev", "--file", file]).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_scheme_is_rejected_in_the_same_words_everywhere() {
    let installation = Installation::new().await;
    let scheme = |scheme: Value| {
        let verification = json!({"secretRef": {"name": "acme"}, "scheme": scheme});
        let mapping = json!({"eventType": ["/type"]});
        let custom = json!({"provider": "custom", "verification": verification, "mapping": mapping});
        merged(acme_spec("acme"), custom)
    };
    let signature = json!({"from": "header:x-signature"});
    for (wrong, field, words) in [
        (json!({"type": "hmac", "signature": signature}), "spec.verification.scheme.message", "must be set"),
        (
            json!({"type": "hmac", "message": "{body}", "signature": {"from": "x-signature"}}),
            "spec.verification.scheme.signature.from",
            "must be the source of the signature",
        ),
        (
            json!({"type": "hmac", "message": "{timestamp}{body}", "signature": signature}),
            "spec.verification.scheme.timestamp",
            "must have from",
        ),
    ] {
        assert_rejected_everywhere(&installation, scheme(wrong), field, words).await;
    }
}

/// Returns the line of a rejection that is about the field, without the text that the server puts around it.
fn complaint(output: &str, field: &str) -> String {
    let line = output
        .lines()
        .find(|line| line.contains(field))
        .unwrap_or_else(|| panic!("{field} is not in: {output}"));
    let start = line.find(field).unwrap_or_default();
    let text = line[start..].trim().strip_prefix(field).unwrap_or_default();
    // Between them: `Invalid value: "…": `.
    let words = text.split_once("Invalid value: \"").and_then(|(_, rest)| rest.split_once("\": "));
    let words = words.map_or(text.trim_start_matches(": "), |(_, words)| words);
    format!("{field}: {words}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_preset_is_rejected_in_the_same_words_everywhere() {
    let installation = Installation::new().await;
    assert_rejected_everywhere(
        &installation,
        merged(acme_spec("acme"), json!({"provider": "initech"})),
        "spec.provider",
        "unknown preset; must be one of acme, adyen, ",
    )
    .await;
}

/// Checks that the API server, `dev` and `explain` reject the object with the same complaint about the field.
async fn assert_rejected_everywhere(installation: &Installation, spec: Value, field: &str, words: &str) {
    let path = installation.directory.join("wrong.json");
    std::fs::write(&path, manifest(installation, spec.clone()).to_string()).expect("write a file");
    let path = path.to_str().expect("UTF-8");
    let (accepted, server) = installation.try_kubectl(&["create", "--dry-run=server", "--filename", path]);
    assert!(!accepted, "{spec} was accepted");
    let complaint = complaint(&server, field);
    assert!(complaint.contains(words), "{server}");
    for (accepted, output) in check_offline(installation, spec).await {
        assert!(!accepted && output.contains(&complaint), "{complaint:?} is not in: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubtful_scheme_is_accepted_with_the_same_warning_everywhere() {
    let mut installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", "a-secret").await;
    let doubtful = json!({"timestamp": {"from": "header:x-sent-at", "toleranceSeconds": 300}});
    let verification = json!({"verification": {"secretRef": {"name": "acme"}, "scheme": doubtful}});
    let spec = merged(acme_spec("acme"), verification);
    installation.apply("orders", spec.clone()).await;
    let object = installation.wait_for_condition("orders", "Accepted", "True", "DoubtfulScheme").await;
    installation.wait_until_ready("orders").await;
    let status = object.status.expect("a status");
    let warning = conditions::find(&status.conditions, "Accepted").expect("the condition").message.clone();
    assert!(
        warning.starts_with("spec.verification.scheme.timestamp: the timestamp is not signed"),
        "{warning}"
    );
    wait_until("the Event", async || {
        installation.event_reasons("orders").await.contains(&"DoubtfulScheme".to_owned())
    })
    .await;

    // Without a database `dev` ends by itself.
    installation.set("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    let [(explained, output), (started, log)] = check_offline(&installation, spec.clone()).await;
    assert!(explained && output.contains(&warning), "{output}");
    assert!(!started && log.contains(&warning), "{log}");

    // If the signed message contains the time, there is no warning.
    let signed = json!({"message": "{timestamp}{body}", "timestamp": {"from": "header:x-sent-at"}});
    let verification = json!({"verification": {"secretRef": {"name": "acme"}, "scheme": signed}});
    installation.apply("orders", merged(spec, verification)).await;
    installation.wait_for_condition("orders", "Accepted", "True", "AsDesired").await;
}
