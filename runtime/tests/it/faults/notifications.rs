//! Integrations that change at the worst moments: while nobody listens for changes, and while a process reads for the first time.

use std::time::Duration;

use grapnel_testing::{FaultProxy, free_port, wait_until};

use super::within;
use crate::harness::{Platform, acme_integration, destination};

/// Less than the time between two periodic reads, which would find every change.
const SOON: Duration = Duration::from_secs(8);

/// The way of a round trip to a server that is far away, or busy.
const FAR: Duration = Duration::from_millis(200);

async fn is_ready(platform: &Platform, ops_port: u16) -> bool {
    let answer = platform.http.get(format!("http://127.0.0.1:{ops_port}/readyz")).send().await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

/// Returns an installation with an Integration whose later processes reach PostgreSQL through a proxy, and the port on which an api says
/// that it is ready.
async fn behind(proxy: impl AsyncFnOnce(&str) -> FaultProxy) -> (Platform, FaultProxy, u16) {
    let mut platform = Platform::new().await;
    platform.apply(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let direct = platform.variable("DATABASE_URL");
    let proxy = proxy(&direct).await;
    platform.set("DATABASE_URL", &proxy.url(&direct));
    let ops_port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
    (platform, proxy, ops_port)
}

/// Writes the row of an Integration as the controller does, without a process that has to start for it.
async fn insert(platform: &Platform, name: &str) {
    let copy = format!(
        "INSERT INTO integrations (id, uid, namespace, name, generation, writer_epoch, provider, route, display_name, state, spec, secrets)
        SELECT gen_random_uuid(), gen_random_uuid()::text, namespace, '{name}', generation, writer_epoch, provider, '{name}',
            display_name, state, spec, ''
        FROM integrations WHERE route = 'acme'"
    );
    assert_eq!(platform.database.execute(&copy).await, 1);
}

/// Waits until a route is no longer unknown. Its secrets cannot be read, which is answered 503.
async fn wait_for_route(platform: &Platform, name: &str) {
    let path = format!("/api/v1/webhooks/{name}");
    let known = wait_until("the route", async || platform.post(&path, &[], "{}").await.status != 404);
    within(SOON, &format!("{name} is known"), known).await;
}

#[tokio::test]
async fn an_integration_that_is_added_right_after_a_slow_first_read_is_soon_known() {
    let (platform, _proxy, ops_port) = behind(async |url| FaultProxy::with_delay(url, FAR).await).await;
    let _api = platform.start(&["api"]);
    wait_until("the first read", async || is_ready(&platform, ops_port).await).await;
    insert(&platform, "added").await;
    wait_for_route(&platform, "added").await;
}

#[tokio::test]
async fn an_api_that_cannot_listen_at_its_start_does_so_soon() {
    let (platform, proxy, ops_port) = behind(async |url| FaultProxy::new(url).await).await;
    proxy.refuse(Some("LISTEN"));
    let api = platform.start(&["api"]);
    wait_until("the first read", async || is_ready(&platform, ops_port).await).await;
    wait_until("the report", async || api.log().contains("no notifications of changed integrations")).await;
    proxy.refuse(None);
    insert(&platform, "added").await;
    wait_for_route(&platform, "added").await;
}

#[tokio::test]
async fn a_change_while_the_connection_for_notifications_is_made_again_is_soon_known() {
    let (platform, _proxy, _) = behind(async |url| FaultProxy::with_delay(url, FAR).await).await;
    let _api = platform.start(&["api"]);
    platform.wait_until_accepting().await;
    // So that the next periodic read is far away.
    insert(&platform, "first").await;
    wait_for_route(&platform, "first").await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND (query LIKE 'LISTEN %' OR query LIKE '/* integrations::check %')";
    assert_eq!(platform.count(end).await, 1);
    insert(&platform, "second").await;
    wait_for_route(&platform, "second").await;
    insert(&platform, "third").await;
    wait_for_route(&platform, "third").await;
}
