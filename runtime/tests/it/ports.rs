//! Which port has which routes, and who may be let in there.

use grapnel::management::openapi::{Served, document};
use grapnel_testing::{MANAGEMENT_KEY, TestProcess, acme_event, free_port, wait_until};
use uuid::Uuid;

use super::harness::{Answer, Platform, acme_integration, destination};

/// Method and path of every route that takes a credential, with an id that nothing has.
fn managed() -> Vec<(reqwest::Method, String)> {
    let everything = document(Served { webhooks: false, managed: true, delivery_sink: false });
    let mut routes = Vec::new();
    for (path, item) in everything.paths.paths {
        // It has no end that could be read; its own tests are of the whole port's router.
        if path.ends_with("/stream/events") {
            continue;
        }
        let path = path.replace("{id}", &Uuid::now_v7().to_string());
        for (method, operation) in [
            (reqwest::Method::GET, item.get),
            (reqwest::Method::POST, item.post),
            (reqwest::Method::PATCH, item.patch),
            (reqwest::Method::DELETE, item.delete),
        ] {
            if operation.is_some_and(|operation| operation.security.is_some()) {
                routes.push((method, path.clone()));
            }
        }
    }
    assert!(routes.len() >= 10);
    routes
}

async fn ask(platform: &Platform, port: u16, method: &reqwest::Method, path: &str) -> Answer {
    let url = format!("http://127.0.0.1:{port}{path}");
    let request = platform.http.request(method.clone(), url).header("x-internal-api-key", MANAGEMENT_KEY);
    Answer::of(request.send().await.expect("an answer")).await
}

fn start_manage(platform: &mut Platform) -> (TestProcess, u16) {
    let port = free_port();
    platform.set("GRAPNEL_MANAGEMENT_ADDR", &format!("127.0.0.1:{port}"));
    (platform.start(&["manage"]), port)
}

async fn wait_until_serving(platform: &Platform, port: u16) {
    let health = format!("http://127.0.0.1:{port}/api/v1/health");
    wait_until("the management port", async || {
        platform.http.get(&health).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

#[tokio::test]
async fn an_api_without_a_key_has_no_management_route() {
    let mut platform = Platform::new().await;
    platform.set("MANAGEMENT_API_KEY", "");
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
    let unknown = ask(&platform, platform.http_port, &reqwest::Method::GET, "/api/v1/nothing").await;
    for (method, path) in managed() {
        let answer = ask(&platform, platform.http_port, &method, &path).await;
        assert_eq!((answer.status, &answer.text), (404, &unknown.text), "{method} {path}");
    }
    let described = platform.get("/openapi.json").await.json();
    let paths: Vec<_> = described["paths"].as_object().expect("paths").keys().cloned().collect();
    let sink = "/api/v1/internal/delivery-sink/{provider}";
    assert_eq!(paths, ["/api/v1/health", sink, "/api/v1/webhooks/{route}"]);
    // It needs no key, and is there in development.
    assert_eq!(platform.post("/api/v1/internal/delivery-sink/acme", &[], "{}").await.status, 202);
}

#[tokio::test]
async fn the_management_port_has_the_management_routes_and_no_webhooks() {
    let mut platform = Platform::new().await;
    let (_api, _worker) = platform
        .start_api_and_worker(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")]))
        .await;
    let event = platform.post_acme(&acme_event("e-1")).await.event_id();
    let (manage, port) = start_manage(&mut platform);
    wait_until_serving(&platform, port).await;
    for (method, path) in managed() {
        let answer = ask(&platform, port, &method, &path).await;
        assert!(!matches!(answer.status, 401 | 405), "{method} {path}: {}", answer.text);
        let url = format!("http://127.0.0.1:{port}{path}");
        let stranger = platform.http.request(method.clone(), url).bearer_auth("a-token").send().await;
        let stranger = stranger.expect("an answer");
        assert_eq!(
            (stranger.status().as_u16(), &stranger.headers()["www-authenticate"]),
            (401, &"Bearer".parse().expect("a value"))
        );
    }
    let webhook = ask(&platform, port, &reqwest::Method::POST, "/api/v1/webhooks/acme").await;
    assert_eq!(webhook.status, 404);
    let health = ask(&platform, port, &reqwest::Method::GET, "/api/v1/health").await.json();
    assert_eq!(health["data"]["checks"], serde_json::json!({"postgres": {"status": "ok"}}));

    // A dispatcher elsewhere finds the replay.
    wait_until("the delivery to fail", async || {
        platform.get(&format!("/api/v1/events/{event}")).await.json()["data"]["event"]["status"] == "failed"
    })
    .await;
    let url = format!("http://127.0.0.1:{port}/api/v1/events/{event}/replay");
    let request = platform.http.post(url).header("x-internal-api-key", MANAGEMENT_KEY);
    let answer = request.json(&serde_json::json!({"reason": "a test"})).send().await.expect("an answer");
    assert_eq!(answer.status(), 202);
    platform
        .wait_for_count("SELECT count(*) FROM replay_requests WHERE status IN ('completed', 'failed')", 1)
        .await;
    assert!(manage.stop().await.success());
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_management_port_closes() {
    let mut platform = Platform::new().await;
    platform.apply(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let (mut manage, port) = start_manage(&mut platform);
    wait_until_serving(&platform, port).await;
    // The rows that the list reads are locked until the process has been told to stop.
    let mut lock = platform.database.begin().await;
    lock.execute("LOCK TABLE integrations IN ACCESS EXCLUSIVE MODE").await;
    let request = platform.http.get(format!("http://127.0.0.1:{port}/api/v1/integrations"));
    let request = request.header("x-internal-api-key", MANAGEMENT_KEY);
    let listing = tokio::spawn(async move { request.send().await.expect("an answer").status().as_u16() });
    platform
        .wait_for_count(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                AND query LIKE '%views::list_integrations%'",
            1,
        )
        .await;
    manage.signal("TERM");
    let url = format!("http://127.0.0.1:{port}/api/v1/health");
    wait_until("the port to close", async || platform.http.get(&url).send().await.is_err()).await;
    lock.rollback().await;
    assert_eq!(listing.await.expect("no panic"), 200);
    assert!(manage.wait().await.success());
}
