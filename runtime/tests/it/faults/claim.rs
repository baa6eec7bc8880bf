//! Only the claim prevents that a delivery is sent twice.

use std::time::Duration;

use grapnel_core::delivery::state::NextState;
use grapnel_core::ids::{EventId, LeaseId};
use grapnel_store::deliveries::{AttemptResult, ClaimedDelivery, claim, record};
use grapnel_store::{ClaimConnections, DedicatedConnection};
use grapnel_testing::acme_event;

use crate::harness::{Platform, acme_integration, destination};

const MINUTE: Duration = Duration::from_secs(60);

fn result(claimed: &ClaimedDelivery, next: NextState) -> AttemptResult {
    AttemptResult {
        event_id: claimed.event_id,
        integration_id: claimed.integration_id,
        destination: "orders".to_owned(),
        lease_id: claimed.lease_id,
        attempt_no: claimed.attempts + 1,
        budget_start: claimed.budget_start,
        replay_request_id: None,
        triggered_by: claimed.triggered_by,
        scheduled_at: claimed.queued_at,
        started_at: claimed.started_at,
        next,
        next_if_replayed: next,
        counts: true,
        http_status: Some(200),
        response_body: None,
        error_message: None,
        duration_ms: 1,
    }
}

#[tokio::test]
async fn result_written_with_an_expired_claim_is_refused() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let id: EventId = platform.post_acme(&acme_event("e-1")).await.event_id().parse().expect("an id");
    platform.wait_for_count("SELECT count(*) FROM deliveries WHERE queued_at IS NOT NULL", 1).await;
    let mut connection = DedicatedConnection::new(platform.db.clone());
    let claims = ClaimConnections::new(&platform.db, 1);

    let mut claimed =
        claim(&claims, "orders", &[id], LeaseId::generate(), Duration::ZERO).await.expect("a claim");
    let expired = claimed.pop().expect("the delivery");
    let written =
        record(&mut connection, &[result(&expired, NextState::Succeeded)]).await.expect("an answer");
    assert!(written.is_empty(), "too late, although nobody has claimed it since");

    let lease_id = LeaseId::generate();
    let mut claimed = claim(&claims, "orders", &[id], lease_id, MINUTE).await.expect("a claim");
    let current = claimed.pop().expect("the delivery");
    let other = claim(&claims, "orders", &[id], LeaseId::generate(), MINUTE).await.expect("an answer");
    assert!(other.is_empty(), "a running claim is not taken over");
    let again = claim(&claims, "orders", &[id], lease_id, MINUTE).await.expect("an answer");
    assert_eq!(again.len(), 1, "a claim whose answer was lost is repeated");
    let written = record(&mut connection, &[result(&expired, NextState::Failed)]).await.expect("an answer");
    assert!(written.is_empty(), "another worker has the claim now");

    let written =
        record(&mut connection, &[result(&current, NextState::Succeeded)]).await.expect("an answer");
    assert_eq!(written.len(), 1);
    for late in [&expired, &current] {
        let written = record(&mut connection, &[result(late, NextState::Failed)]).await.expect("an answer");
        assert!(written.is_empty(), "a finished delivery stays as it is");
    }
    let again = claim(&claims, "orders", &[id], lease_id, MINUTE).await.expect("an answer");
    assert!(again.is_empty(), "not even by the claim that finished it");
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE status = 'succeeded'").await, 1);
    assert_eq!(platform.count("SELECT count(*) FROM delivery_attempts").await, 1);
}

#[tokio::test]
async fn claims_share_a_few_connections_and_one_claim_fails_when_all_have_ended() {
    const SESSIONS: &str =
        "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'grapnel-claim'";
    let platform = Platform::new().await;
    let claims = ClaimConnections::new(&platform.db, 2);
    let ids = [EventId::generate()];
    let try_claim = || claim(&claims, "orders", &ids, LeaseId::generate(), MINUTE);

    let several = tokio::join!(try_claim(), try_claim(), try_claim(), try_claim());
    assert!(several.0.is_ok() && several.1.is_ok() && several.2.is_ok() && several.3.is_ok());
    assert_eq!(platform.count(&format!("SELECT count(*) {SESSIONS}")).await, 2);

    platform.database.execute(&format!("SELECT pg_terminate_backend(pid, 10000) {SESSIONS}")).await;
    try_claim().await.expect_err("its connection has ended");
    try_claim().await.expect("the other that had ended is not used");
    assert_eq!(platform.count(&format!("SELECT count(*) {SESSIONS}")).await, 1);
}
