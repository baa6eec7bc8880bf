//! The pages: what is on them comes from where it happened.

use grapnel_core::ids::IntegrationId;
use grapnel_store::integrations::status::{self, ObjectStatus, ReadyCondition, StatusReport};
use grapnel_testing::{TestReceiver, acme_event, wait_until};
use serde_json::json;

use super::harness::Console;
use crate::harness::{Platform, acme_integration, destination};

async fn dev(platform: &mut Platform, destinations: &[String]) -> Console {
    let file = platform.write_integrations(&acme_integration(destinations));
    let arguments = ["dev", "--file", file.to_str().expect("a path")];
    let console = Console::start_role(platform, &arguments, "127.0.0.1", &[]).await;
    platform.wait_until_accepting().await;
    console
}

async fn wait_for_text(console: &Console, path: &str, texts: &[&str]) -> String {
    let mut last = String::new();
    wait_until(&format!("{texts:?} on {path}"), async || {
        last = console.get(path, &[("hx-request", "true")]).await.text;
        texts.iter().all(|text| last.contains(text))
    })
    .await;
    last
}

#[tokio::test]
async fn the_overview_says_what_fails_and_where_to_look() {
    let mut platform = Platform::new().await;
    let receiver = TestReceiver::new().await;
    let fails = "{name: broken, url: 'http://127.0.0.1:9/', retry: {maxAttempts: 1}}".to_owned();
    let console = dev(&mut platform, &[destination("orders", &receiver.url("/")), fails]).await;
    for number in 0..3 {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
    let id = platform.database.text("SELECT id::text FROM integrations").await.expect("an id");
    let why = format!("/console/deliveries?integration={id}&#38;destination=broken&#38;status=failed");
    let part =
        wait_for_text(&console, "/console/", &["failing", "<b>broken</b>", &why, "3 of 3 attempts failed"])
            .await;
    assert!(part.contains("destination failing"), "{part}");
    let page =
        wait_for_text(&console, &format!("/console/integrations/{id}"), &["failing", "delivering"]).await;
    assert!(page.contains("See what failed"), "{page}");
}

#[tokio::test]
async fn the_page_of_an_integration_has_its_flow_its_charts_and_its_object() {
    let mut platform = Platform::new().await;
    let receiver = TestReceiver::new().await;
    let console = dev(&mut platform, &[destination("orders", &receiver.url("/hooks"))]).await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
    assert_eq!(platform.post("/api/v1/webhooks/acme", &[], "{}").await.status, 401);
    let id = platform.database.text("SELECT id::text FROM integrations").await.expect("an id");
    let path = format!("/console/integrations/{id}");
    wait_for_text(&console, &path, &["1 accepted", "delivering", &receiver.url("/hooks")]).await;
    for window in ["1h", "24h", "7d"] {
        let page = console.get(&format!("{path}?window={window}"), &[]).await;
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(page.text.contains("<svg class=\"chart\""), "{window}: {}", page.text);
        assert!(
            page.text.contains("aria-label=\"accepted: at most 1; delivered: at most 1\""),
            "{}",
            page.text
        );
    }
    let page = console.get(&path, &[]).await.text;
    assert!(page.contains("kind: Integration") && page.contains("acme-secrets"), "{page}");
    assert!(!page.contains(grapnel_testing::ACME_SECRET), "{page}");
    assert!(page.contains("Refused lately") && page.contains("unauthorized"), "{page}");
    let charts = console.get(&format!("{path}/charts?window=1h"), &[("hx-request", "true")]).await;
    assert!(charts.text.trim_start().starts_with("<section id=\"charts\""), "{}", charts.text);
    assert_eq!(console.get(&format!("{path}?window=2h"), &[]).await.status, 400);
    for unknown in ["nothing", "0199a000-0000-7000-8000-000000000000"] {
        assert_eq!(console.get(&format!("/console/integrations/{unknown}"), &[]).await.status, 404);
    }
}

#[tokio::test]
async fn readiness_is_shown_as_it_was_reported_or_not_at_all() {
    let mut platform = Platform::new().await;
    let receiver = TestReceiver::new().await;
    let console = dev(&mut platform, &[destination("orders", &receiver.url("/"))]).await;
    let id = platform.database.text("SELECT id::text FROM integrations").await.expect("an id");
    let path = format!("/console/integrations/{id}");
    wait_for_text(&console, "/console/", &["not reported"]).await;
    wait_for_text(&console, &path, &["no controller has reported"]).await;

    let condition = json!({
        "type": "Ready", "status": "False", "reason": "QueueMismatch", "message": "x-queue-type", "lastTransitionTime": "2026-11-24T10:00:00Z",
    });
    let status = ObjectStatus {
        ready: Some(ReadyCondition {
            status: "False".into(),
            reason: "QueueMismatch".into(),
            message: "x-queue-type".into(),
            since: "2026-11-24T10:00:00Z".parse().expect("a time"),
        }),
        conditions: json!([condition]).to_string(),
        ..ObjectStatus::default()
    };
    let report =
        StatusReport { id: IntegrationId::new(id.parse().expect("a UUID")), status: &status, backlog: None };
    status::report(&platform.db, 1, &[report]).await.expect("a commit");
    let why = format!("/console/integrations/{id}#conditions");
    wait_for_text(&console, "/console/", &["not ready", "QueueMismatch", "x-queue-type", &why]).await;
    let meaning = "a queue with this name exists with different properties";
    wait_for_text(&console, &path, &["QueueMismatch", meaning, "delete that queue in RabbitMQ"]).await;

    // A minute without a row is like the one before, and after a while it is not known.
    let minutes = format!(
        "INSERT INTO worker_minutes SELECT '{id}'::uuid, date_trunc('minute', now()) - interval '40 minutes', 70, 2, 1
        UNION ALL SELECT '{id}'::uuid, date_trunc('minute', now()) - interval '5 minutes', NULL, 3, 3"
    );
    platform.database.execute(&minutes).await;
    for window in ["1h", "24h", "7d"] {
        let page = console.get(&format!("{path}?window={window}"), &[]).await.text;
        assert!(page.contains("queued deliveries: at most 70"), "{window}: {page}");
        assert!(page.contains("asked for: at most 3; ready: at most 3"), "{window}: {page}");
    }
    let hour = console.get(&format!("{path}?window=1h"), &[]).await.text;
    let workers = hour.split("<figcaption>Workers").nth(1).expect("a chart");
    assert_eq!(
        workers.matches("class=\"line s1\" points").count(),
        2,
        "two runs of what is known: {workers}"
    );
}

#[tokio::test]
async fn an_empty_installation_says_what_to_do_next() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let session = console.log_in().await;
    let page = console.page("/console/", &session).await;
    assert!(page.text.contains("There is no Integration yet"), "{}", page.text);
    let replays = console.page("/console/replays/requests", &session).await;
    assert!(replays.text.contains("Nothing was replayed"), "{}", replays.text);
    let wrong = console.page("/console/replays/requests?statsu=failed", &session).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("statsu"), "{}", wrong.text);
}
