//! The ownership of routes.

use grapnel_testing::{ACME_SECRET, wait_until};

use crate::harness::{Installation, acme_spec};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_claim_of_a_route_wins_and_the_loser_owns_nothing() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("first", acme_spec("acme")).await;
    let first = installation.wait_until_ready("first").await;
    installation.apply("second", acme_spec("acme")).await;
    let second = installation.wait_for_condition("second", "Accepted", "False", "RouteConflict").await;
    assert!(installation.row(second.id()).await.is_none());
    assert!(installation.replicas(second.id()).await.is_none());

    // The loser is deleted, which does not affect the holder.
    installation.delete("second").await;
    installation.wait_until_gone("second").await;
    let row = installation.row(first.id()).await.expect("a row");
    assert_eq!((row["deleted"].as_bool(), row["state"].as_str()), (Some(false), Some("Active")));

    // The holder is deleted, and one that waits takes the route.
    installation.apply("third", acme_spec("acme")).await;
    installation.wait_for_condition("third", "Accepted", "False", "RouteConflict").await;
    installation.delete("first").await;
    installation.wait_until_gone("first").await;
    let third = installation.wait_until_ready("third").await;
    wait_until("the row", async || installation.row(third.id()).await.is_some()).await;
}
