//! Routes that were freed, and destinations that were renamed.

use grapnel_testing::acme_event;

use super::super::harness::{Platform, acme_integration, destination, integration, integration_named};
use super::{apply, nowhere};

const REFUSED: &str = "was freed by another namespace and stays its own until 20";

fn of_another_namespace(name: &str, route: &str) -> String {
    integration_named(name, "acme", &format!("  route: {route}\n"), &[nowhere()])
        .replace("namespace: test", "namespace: other")
}

#[tokio::test]
async fn a_freed_route_stays_its_namespaces_for_seven_days() {
    let platform = Platform::new().await;
    let with_route = |route: &str| integration("acme", &format!("  route: {route}\n"), &[nowhere()]);
    platform.apply(&with_route("first")).await;
    platform.apply(&with_route("second")).await;

    let (applied, text) = apply(&platform, &of_another_namespace("squatter", "first")).await;
    assert!(!applied && text.contains(REFUSED), "{text}");
    assert_eq!(platform.count("SELECT count(*) FROM integrations").await, 1);
    // A route that nobody had is free, and so is the old one for its own namespace, under any name.
    platform.apply(&of_another_namespace("squatter", "third")).await;
    platform.apply(&integration_named("heir", "acme", "  route: first\n", &[nowhere()])).await;
    // What holds a route can be changed.
    platform
        .apply(&integration_named("heir", "acme", "  route: first\n  displayName: Heir\n", &[nowhere()]))
        .await;
    assert_eq!(platform.count("SELECT count(*) FROM freed_routes WHERE route = 'first'").await, 0);

    // After seven days it is anybody's.
    let (applied, text) = apply(&platform, &with_route("fourth")).await;
    assert!(applied, "{text}");
    let (applied, text) = apply(&platform, &of_another_namespace("squatter", "second")).await;
    assert!(!applied && text.contains(REFUSED), "{text}");
    platform.database.execute("UPDATE freed_routes SET freed_at = now() - interval '7 days 1 second'").await;
    platform.apply(&of_another_namespace("squatter", "second")).await;
}

#[tokio::test]
async fn whoever_waits_for_a_route_does_not_get_it_the_moment_it_is_freed() {
    let platform = Platform::new().await;
    platform.apply(&acme_integration(&[nowhere()])).await;
    // The claim waits for a removal that has not been committed.
    let mut removal = platform.database.begin().await;
    removal.execute("UPDATE integrations SET deleted_at = now()").await;
    let yaml = of_another_namespace("squatter", "acme");
    let ((applied, text), ()) = tokio::join!(apply(&platform, &yaml), async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%integrations::upsert%'";
        platform.wait_for_count(waiting, 1).await;
        removal.commit().await;
    });
    assert!(!applied && text.contains(REFUSED), "{text}");
}

#[tokio::test]
async fn removing_a_destination_that_deliveries_wait_for_is_told_before() {
    let platform = Platform::new().await;
    let orders = |name: &str| acme_integration(&[destination(name, "http://127.0.0.1:9/")]);
    let _api = platform.start_api(&orders("orders")).await;
    for number in 0..3 {
        assert_eq!(platform.post_acme(&acme_event(&format!("e-{number}"))).await.status, 202);
    }
    let (applied, text) = apply(&platform, &orders("renamed")).await;
    assert!(applied && text.contains("end as failed: orders (3)"), "{text}");
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE status = 'failed'", 3).await;
    // Nothing waits any more.
    let (applied, text) = apply(&platform, &orders("orders")).await;
    assert!(applied && !text.contains("end as failed"), "{text}");
}
