//! Without Kubernetes: Integrations from files, with `dev` and `apply`, and the migrations.

mod edits;
mod routes;
mod schema;

use grapnel_testing::{ACME_SECRET, TestReceiver, acme_event};

use super::harness::{Platform, acme_integration, destination, integration};

fn nowhere() -> String {
    destination("orders", "http://127.0.0.1:9/")
}

async fn apply(platform: &Platform, yaml: &str) -> (bool, String) {
    let path = platform.write_integrations(yaml);
    let output = platform.try_run(&["apply", "--file", path.to_str().expect("a path in UTF-8")]).await;
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    (output.status.success(), text)
}

#[tokio::test]
async fn apply_prints_its_changes_and_does_nothing_twice() {
    let platform = Platform::new().await;
    let acme = acme_integration(&[nowhere()]);
    let globex = integration("globex", "", &[nowhere()]);
    let said = async |yaml: &str| apply(&platform, yaml).await.1;

    assert_eq!(said(&acme).await, "integration test/acme created\n");
    let rows = "SELECT sum(generation)::bigint + count(*) FROM integrations";
    let (before, audited) = (platform.count(rows).await, "SELECT count(*) FROM audit_entries");
    let entries = platform.count(audited).await;
    assert_eq!(said(&acme).await, "integration test/acme unchanged\n");
    assert_eq!((platform.count(rows).await, platform.count(audited).await), (before, entries));

    let both = acme.clone() + "---\n" + &globex;
    assert_eq!(said(&both).await, "integration test/acme unchanged\nintegration test/globex created\n");
    let edited = both.replace("127.0.0.1:9/", "127.0.0.1:10/");
    assert_eq!(said(&edited).await, "integration test/acme updated\nintegration test/globex updated\n");
    let other_secret = edited.replace(ACME_SECRET, "another-acme-secret");
    assert_eq!(
        said(&other_secret).await,
        "integration test/acme updated\nintegration test/globex unchanged\n"
    );

    // Applying one file does not change the objects of the others.
    assert_eq!(said(&acme).await, "integration test/acme updated\n");
    assert_eq!(platform.count("SELECT count(*) FROM integrations WHERE deleted_at IS NULL").await, 2);
}

#[tokio::test]
async fn apply_refuses_an_invalid_file_as_a_whole_and_names_every_field() {
    let platform = Platform::new().await;
    let good = acme_integration(&[nowhere()]);
    let check = async |yaml: &str, said: &[&str]| {
        let (applied, text) = apply(&platform, yaml).await;
        assert!(!applied, "{yaml} was applied");
        for words in said {
            assert!(text.contains(words), "{words:?} is not in: {text}");
        }
        assert!(text.contains("integrations.yaml"), "{text}");
        assert!(!text.contains(ACME_SECRET), "{text}");
    };
    check(
        &good.replace("maxAttempts", "maxAttempt"),
        &["spec.destinations[0].retry.maxAttempt", "Integration test/acme"],
    )
    .await;
    check(&good.replace("  provider: acme\n", "  provider: acme\n  ingres: {}\n"), &["spec.ingres"]).await;
    check(&good.replace("namespace: test}\nspec", "namespace: test, label: {}}\nspec"), &["metadata.label"])
        .await;
    check(&good.replace("timeoutSeconds: 2", "timeoutSeconds: 0"), &["spec.destinations[0].timeoutSeconds"])
        .await;
    check(
        &good.replace("timeoutSeconds: 2", "timeoutSeconds: soon"),
        &["spec.destinations[0].timeoutSeconds"],
    )
    .await;
    check(&good.replace("http://127.0.0.1:9/", "ftp://127.0.0.1/"), &["spec.destinations[0].url"]).await;
    check(
        &good.replace("provider: acme", "provider: initech"),
        &["spec.provider", "unknown preset; must be one of acme, "],
    )
    .await;
    check(&good.replace("key: incoming", "key: other"), &["spec.verification.secretRef", "other"]).await;
    check(&good.replace("kind: Integration", "kind: Integrations"), &["kind"]).await;
    check(&good.replace("spec:", "spec: ["), &["line"]).await;
    let twice = good.clone() + "---\n" + &good;
    check(&twice, &["Integration test/acme is defined twice"]).await;
    let one_route = good.clone() + "---\n" + &integration("globex", "  route: acme\n", &[nowhere()]);
    check(&one_route, &["spec.route: acme belongs to another Integration"]).await;
    // All mistakes are reported at once, and the object without one is not applied either.
    let two = good.replace("timeoutSeconds: 2", "timeoutSeconds: 0")
        + "---\n"
        + &integration("globex", "  retention: {days: 0}\n", &[nowhere()]);
    check(&two, &["spec.destinations[0].timeoutSeconds", "spec.retention.days"]).await;
    let one_is_good = two.replace("timeoutSeconds: 0", "timeoutSeconds: 2");
    check(&one_is_good, &["spec.retention.days"]).await;
    assert_eq!(platform.count("SELECT count(*) FROM integrations").await, 0);
}

#[tokio::test]
async fn route_that_another_writer_holds_is_not_taken_over() {
    let platform = Platform::new().await;
    let holder = "INSERT INTO integrations
        (id, uid, namespace, name, generation, provider, route, display_name, state, spec, secrets)
        VALUES (gen_random_uuid(), '0b4a1c5e-0000-4000-8000-000000000000', 'shop', 'first', 1, 'acme', 'acme',
            'First', 'Active', '{}', '')";
    platform.database.execute(holder).await;
    let (applied, text) = apply(&platform, &acme_integration(&[nowhere()])).await;
    assert!(!applied);
    assert!(
        text.contains("integration test/acme: spec.route: acme belongs to another integration"),
        "{text}"
    );
    assert_eq!(platform.count("SELECT count(*) FROM integrations WHERE name = 'first'").await, 1);
    assert_eq!(platform.count("SELECT count(*) FROM integrations").await, 1);
}

#[tokio::test]
async fn dev_is_everything_in_one_process() {
    let receiver = TestReceiver::new().await;
    let platform = Platform::new().await;
    let path = platform.write_integrations(&acme_integration(&[destination("orders", &receiver.url("/"))]));
    let dev = platform.start(&["dev", "--file", path.to_str().expect("a path in UTF-8")]);
    platform.wait_until_accepting().await;
    let accepted = platform.post_acme(&acme_event("e-1")).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(receiver.wait_for(1).await[0].header("webhook-id"), accepted.event_id());
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'", 1).await;
    let log = dev.log();
    let status = dev.stop().await;
    assert!(status.success(), "{status}: {log}");
}

#[tokio::test]
async fn dev_does_not_start_with_an_invalid_file() {
    let platform = Platform::new().await;
    let path = platform.write_integrations(&acme_integration(&[nowhere()]).replace("maxAttempts", "tries"));
    let output = platform.try_run(&["dev", "--file", path.to_str().expect("a path in UTF-8")]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("spec.destinations[0].retry.tries"), "{text}");
    let output = platform.try_run(&["dev", "--file", "/nonexistent/integrations.yaml"]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("/nonexistent/integrations.yaml"), "{text}");
    assert_eq!(platform.count("SELECT count(*) FROM integrations").await, 0);
}
