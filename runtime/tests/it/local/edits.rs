//! `grapnel dev` follows its files.

use grapnel_testing::{
    ACME_SECRET, Reply, TestProcess, TestReceiver, acme_event, acme_signature, wait_until,
};

use super::super::harness::{
    GLOBEX_TOKEN, Platform, acme_integration, destination, integration, integration_named,
};
use super::nowhere;

/// Starts `dev` with one file.
async fn start_dev(platform: &Platform, yaml: &str) -> TestProcess {
    let path = platform.write_integrations(yaml);
    let dev = platform.start(&["dev", "--file", path.to_str().expect("a path in UTF-8")]);
    platform.wait_until_accepting().await;
    dev
}

async fn post_signed_with(platform: &Platform, secret: &str, id: &str) -> u16 {
    let body = acme_event(id);
    let signature = acme_signature(secret, body.as_bytes());
    platform.post("/api/v1/webhooks/acme", &[("x-acme-signature", &signature)], &body).await.status
}

#[tokio::test]
async fn edit_takes_effect_without_a_restart() {
    const NEW_SECRET: &str = "acme-next-secret-55e0";
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let first = acme_integration(&[destination("orders", &receiver.url("/first"))]);
    let mut dev = start_dev(&platform, &first).await;
    assert_eq!(post_signed_with(&platform, ACME_SECRET, "e-1").await, 202);
    assert_eq!(receiver.wait_for(1).await[0].path, "/first");

    // The URL.
    let second = first.replace("/first", "/second");
    platform.write_integrations(&second);
    let mut number = 1;
    wait_until("a delivery to the new URL", || {
        number += 1;
        let id = format!("e-{number}");
        let (platform, receiver) = (&platform, &receiver);
        async move {
            assert_eq!(post_signed_with(platform, ACME_SECRET, &id).await, 202);
            !receiver.deliveries_to("/second").is_empty()
        }
    })
    .await;

    // The secret.
    let with_new_secret = second.replace(ACME_SECRET, NEW_SECRET);
    platform.write_integrations(&with_new_secret);
    wait_until("the new secret", || async { post_signed_with(&platform, NEW_SECRET, "secret").await != 401 })
        .await;
    assert_eq!(post_signed_with(&platform, ACME_SECRET, "e-1").await, 401);

    // The state, the size, a second Integration.
    let disabled = with_new_secret.replace("  provider: acme\n", "  provider: acme\n  state: Disabled\n");
    platform.write_integrations(&disabled);
    platform.wait_for_status("/api/v1/webhooks/acme", 404).await;
    let small = disabled.replace("state: Disabled", "ingress: {maxBodyBytes: 1024}");
    platform.write_integrations(&(small + "---\n" + &integration("globex", "", &[nowhere()])));
    platform.wait_for_status("/api/v1/webhooks/acme", 401).await;
    let large = platform.post("/api/v1/webhooks/acme", &[], &"x".repeat(1025)).await;
    assert_eq!(large.status, 413);
    platform.wait_for_status("/api/v1/webhooks/globex", 401).await;
    assert!(dev.is_running());
}

#[tokio::test]
async fn invalid_file_keeps_the_last_good_state_and_is_logged() {
    let (platform, receiver) = (Platform::new().await, TestReceiver::new().await);
    let good = acme_integration(&[destination("orders", &receiver.url("/"))]);
    let dev = start_dev(&platform, &good).await;
    let mut number = 0;
    let mut refuse = async |yaml: &str, said: &str| {
        number += 1;
        platform.write_integrations(yaml);
        dev.wait_for_log(said).await;
        assert_eq!(post_signed_with(&platform, ACME_SECRET, &format!("e-{number}")).await, 202);
        receiver.wait_for(number).await;
    };
    let object = "integrations.yaml: document 1 (line 1, Integration test/acme): ";
    refuse(&good.replace("timeoutSeconds", "timeout"), &format!("{object}spec.destinations[0].timeout"))
        .await;
    refuse(
        &good.replace("timeoutSeconds: 2", "timeoutSeconds: 61"),
        "integrations.yaml: Integration test/acme: spec.destinations[0].timeoutSeconds",
    )
    .await;
    refuse(
        &good.replace("key: incoming", "key: missing"),
        "integrations.yaml: Integration test/acme: spec.verification.secretRef",
    )
    .await;
    refuse(&good.replace("kind: Integration", "kind: ["), "integrations.yaml: line ").await;
    refuse(&(good.clone() + "---\n" + &good), "integrations.yaml: Integration test/acme is defined twice")
        .await;
    assert!(!dev.log().contains(ACME_SECRET));

    // A mistake is logged once, not each time that the file is read.
    let said = dev.log().matches("the last valid state stays").count();
    assert_eq!(said, 5, "{}", dev.log());
    // Then the file is valid again.
    platform.write_integrations(&good.replace("/'", "/again'"));
    wait_until("the good file", || async {
        let again = "SELECT count(*) FROM integrations WHERE spec::text LIKE '%/again%'";
        platform.count(again).await == 1
    })
    .await;
}

#[tokio::test]
async fn missing_file_keeps_the_last_good_state() {
    let platform = Platform::new().await;
    let dev = start_dev(&platform, &acme_integration(&[nowhere()])).await;
    let path = platform.write_integrations(&acme_integration(&[nowhere()]));
    std::fs::remove_file(&path).expect("remove the file");
    dev.wait_for_log("the files were not applied; the last valid state stays").await;
    assert!(dev.log().contains(path.to_str().expect("a path in UTF-8")));
    assert_eq!(post_signed_with(&platform, ACME_SECRET, "e-1").await, 202);
}

#[tokio::test]
async fn removed_object_is_retired_with_its_deliveries_and_returns_with_its_file() {
    let receiver = TestReceiver::answering(|_, _| Reply::Status(500)).await;
    let platform = Platform::new().await;
    let globex = integration("globex", "", &[nowhere()]);
    let orders = destination("orders", &receiver.url("/")).replace("Seconds: 1", "Seconds: 3600");
    let both = acme_integration(&[orders]) + "---\n" + &globex;
    let _dev = start_dev(&platform, &both).await;
    assert_eq!(post_signed_with(&platform, ACME_SECRET, "e-1").await, 202);
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'retrying'", 1).await;

    platform.write_integrations(&globex);
    platform.wait_for_status("/api/v1/webhooks/acme", 404).await;
    let ended = "SELECT count(*) FROM deliveries WHERE status = 'failed' AND last_error = 'the integration was removed'";
    platform.wait_for_count(ended, 1).await;
    assert_eq!(
        platform.post("/api/v1/webhooks/globex", &[("x-globex-token", GLOBEX_TOKEN)], "{}").await.status,
        400
    );

    platform.write_integrations(&both);
    platform.wait_for_status("/api/v1/webhooks/acme", 401).await;
    // Its history is still there: the same event is a duplicate.
    assert_eq!(post_signed_with(&platform, ACME_SECRET, "e-1").await, 200);
    assert_eq!(post_signed_with(&platform, ACME_SECRET, "e-2").await, 202);
}

#[tokio::test]
async fn route_moves_from_a_removed_object_to_a_new_one() {
    let platform = Platform::new().await;
    let _dev = start_dev(&platform, &acme_integration(&[nowhere()])).await;
    let successor = integration_named("acme-2", "acme", "  route: acme\n", &[nowhere()]);
    platform.write_integrations(&successor);
    let moved =
        "SELECT count(*) FROM integrations WHERE name = 'acme-2' AND route = 'acme' AND deleted_at IS NULL";
    platform.wait_for_count(moved, 1).await;
    platform.wait_for_status("/api/v1/webhooks/acme", 401).await;
    assert_eq!(platform.count("SELECT count(*) FROM integrations WHERE deleted_at IS NULL").await, 1);
}

#[tokio::test]
async fn route_that_two_objects_name_stays_with_its_holder() {
    let platform = Platform::new().await;
    let acme = acme_integration(&[nowhere()]);
    let dev = start_dev(&platform, &acme).await;
    let rival = integration_named("rival", "globex", "  route: acme\n", &[nowhere()]);
    platform.write_integrations(&(acme + "---\n" + &rival));
    dev.wait_for_log("Integration test/rival: spec.route: acme belongs to another Integration").await;
    assert_eq!(post_signed_with(&platform, ACME_SECRET, "e-1").await, 202);
    assert_eq!(platform.count("SELECT count(*) FROM integrations").await, 1);
}

/// The mistake is found only in the database, after another object of the file was applied.
#[tokio::test]
async fn edit_that_was_half_applied_is_undone_by_the_previous_file() {
    let platform = Platform::new().await;
    let acme = acme_integration(&[nowhere()]);
    let dev = start_dev(&platform, &acme).await;
    let holder = "INSERT INTO integrations
        (id, uid, namespace, name, generation, provider, route, display_name, state, spec, secrets)
        VALUES (gen_random_uuid(), '0b4a1c5e-0000-4000-8000-000000000000', 'shop', 'first', 1, 'acme', 'held',
            'First', 'Active', '{}', '')";
    platform.database.execute(holder).await;
    let rival = integration_named("rival", "globex", "  route: held\n", &[nowhere()]);
    platform.write_integrations(&(acme.replace("127.0.0.1:9/", "127.0.0.1:10/") + "---\n" + &rival));
    dev.wait_for_log("integration test/rival: spec.route: held belongs to another integration").await;

    platform.write_integrations(&acme);
    let undone = "SELECT count(*) FROM integrations WHERE name = 'acme' AND spec::text LIKE '%127.0.0.1:9/%'";
    platform.wait_for_count(undone, 1).await;
    // The other one is applied when its route is free.
    platform.write_integrations(&(acme + "---\n" + &rival));
    platform.database.execute("DELETE FROM integrations WHERE name = 'first'").await;
    platform.wait_for_status("/api/v1/webhooks/held", 401).await;
}

#[tokio::test]
async fn folder_means_all_files_in_it() {
    let platform = Platform::new().await;
    let folder = platform.write_integrations("").with_file_name("folder");
    std::fs::create_dir(&folder).expect("create a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("write a file");
    write("acme.yaml", &acme_integration(&[nowhere()]));
    write("notes.txt", "not YAML: [");
    let _dev = platform.start(&["dev", "--file", folder.to_str().expect("a path in UTF-8")]);
    platform.wait_until_accepting().await;
    write("globex.yml", &integration("globex", "", &[nowhere()]));
    platform.wait_for_status("/api/v1/webhooks/globex", 401).await;
    std::fs::remove_file(folder.join("acme.yaml")).expect("remove a file");
    platform.wait_for_status("/api/v1/webhooks/acme", 404).await;
    assert_eq!(platform.post("/api/v1/webhooks/globex", &[], "{}").await.status, 401);
}
