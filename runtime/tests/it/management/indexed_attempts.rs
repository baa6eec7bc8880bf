//! Attempts that one statement records share an entry of the index by integration and outcome, and each is found as if it had its own.

use std::time::Duration;

use axum::http::StatusCode;
use grapnel_core::delivery::state::NextState;
use grapnel_core::ids::{EventId, LeaseId};
use grapnel_store::ClaimConnections;
use grapnel_store::deliveries::{ClaimedDelivery, claim};
use jiff::{Timestamp, Unit};
use uuid::Uuid;

use super::harness::{Api, NOTHING, event, for_destinations, later, result};

/// The attempts that an entry stands for, at most.
const MOST_ATTEMPTS: usize = 32;

impl Api {
    /// Stores events with deliveries to these destinations, and claims the deliveries of each destination together.
    async fn claimed(
        &self,
        integration: Uuid,
        events: usize,
        destinations: &[&str],
    ) -> Vec<Vec<ClaimedDelivery>> {
        let mut batch: Vec<_> =
            (0..events).map(|_| for_destinations(event(integration), destinations)).collect();
        self.store_batch_of(&mut batch).await;
        let ids: Vec<EventId> = batch.iter().map(|event| event.id).collect();
        let mut claimed = Vec::new();
        for destination in destinations {
            claimed.push(self.claim_all(&ids, destination, Duration::from_secs(60)).await);
        }
        claimed
    }

    async fn claim_all(&self, ids: &[EventId], destination: &str, lease: Duration) -> Vec<ClaimedDelivery> {
        let claims = ClaimConnections::new(&self.db, 1);
        claim(&claims, destination, ids, LeaseId::generate(), lease).await.expect("a commit")
    }

    /// The ids of the attempts for which this holds, the latest first.
    async fn attempts(&self, condition: &str) -> Vec<Uuid> {
        let sql = format!(
            "SELECT string_agg(id::text, ' ' ORDER BY id DESC) FROM delivery_attempts WHERE {condition}"
        );
        let ids = self.text(&sql).await.unwrap_or_default();
        ids.split_whitespace().map(|id| id.parse().expect("an id")).collect()
    }

    /// Checks a list of attempts with its total, whole and in pages that end within a slot.
    async fn check_attempts(&self, query: &str, condition: &str) {
        let expected = self.attempts(condition).await;
        let path = format!("/deliveries?{query}");
        for size in [100, 7] {
            let paged = format!("{path}&pageSize={size}");
            let first = self.get(&paged).await.expect(StatusCode::OK);
            assert_eq!(first.json["meta"]["total"], expected.len(), "{path}");
            assert_eq!(self.all_ids(&paged).await, expected, "{path}");
        }
    }

    /// Checks that each attempt is found through one entry.
    async fn check_attempt_entries(&self) -> i64 {
        let attempts = self.database.count("SELECT count(*) FROM delivery_attempts").await;
        assert_eq!(
            self.database.count("SELECT sum(indexed_attempts) FROM delivery_attempts").await,
            attempts
        );
        self.database.count("SELECT count(*) FROM delivery_attempts WHERE indexed_attempts > 0").await
    }
}

#[tokio::test]
async fn each_attempt_of_a_statement_is_found_by_its_integration_and_its_outcome() {
    let api = Api::start().await;
    let (acme, globex) =
        (api.integration("acme", &["orders", "mirror"]).await, api.integration("globex", &["orders"]).await);
    let mut results = Vec::new();
    for (destination, claimed) in
        ["orders", "mirror"].iter().zip(api.claimed(acme, 70, &["orders", "mirror"]).await)
    {
        for (number, claimed) in claimed.iter().enumerate() {
            let next = if number % 7 == 0 { later() } else { NextState::Succeeded };
            results.push(result(claimed, destination, next));
        }
    }
    for claimed in &api.claimed(globex, 3, &["orders"]).await[0] {
        results.push(result(claimed, "orders", NextState::Failed));
    }
    assert_eq!(api.record(&results).await, 143);
    let shared = format!(
        "SELECT sum(ceil(attempts / {MOST_ATTEMPTS}.0))::bigint FROM (
            SELECT count(*) AS attempts FROM delivery_attempts
            GROUP BY integration_id, destination, succeeded, attempt_no, id_slot(id)
        ) AS alike"
    );
    let entries = api.check_attempt_entries().await;
    assert_eq!(entries, api.database.count(&shared).await);
    assert!(entries < 20, "{entries} entries");

    // A later statement, with attempts of two numbers and of an event of its own.
    let ids: Vec<EventId> = results
        .iter()
        .filter(|result| result.next != NextState::Succeeded)
        .map(|result| result.event_id)
        .collect();
    api.execute("UPDATE deliveries SET queued_at = now(), due_at = NULL WHERE status = 'retrying'").await;
    let mut retried: Vec<_> = api.claim_all(&ids, "orders", Duration::from_secs(60)).await;
    assert_eq!(retried.len(), 10);
    retried.extend(api.claimed(acme, 2, &["orders"]).await.remove(0));
    let results: Vec<_> =
        retried.iter().map(|claimed| result(claimed, "orders", NextState::Succeeded)).collect();
    // Bounds are to the millisecond.
    let between = Timestamp::now().round(Unit::Millisecond).expect("a time");
    assert_eq!(api.record(&results).await, 12);
    api.check_attempt_entries().await;

    let of_acme = format!("integration_id = '{acme}'");
    api.check_attempts("integration=shop/acme", &of_acme).await;
    api.check_attempts("integration=shop/acme&status=success", &format!("{of_acme} AND succeeded")).await;
    api.check_attempts("integration=shop/acme&status=failed", &format!("{of_acme} AND NOT succeeded")).await;
    api.check_attempts("integration=shop/globex", &format!("integration_id = '{globex}'")).await;
    assert_eq!(api.ids("/deliveries?integration=shop/globex&status=success").await, NOTHING);
    let mirrored = api.all_ids("/deliveries?integration=shop/acme&destination=mirror&pageSize=9").await;
    assert_eq!(mirrored, api.attempts("destination = 'mirror'").await);
    let time = |id: &str| format!("uuidv7_time({id})");
    let (before, after) =
        (format!("{} <= '{between}'", time("id")), format!("{} >= '{between}'", time("id")));
    api.check_attempts(&format!("integration=shop/acme&to={between}"), &format!("{of_acme} AND {before}"))
        .await;
    api.check_attempts(&format!("integration=shop/acme&from={between}"), &format!("{of_acme} AND {after}"))
        .await;

    let processed = "integration=shop/acme&action=event.processed";
    let succeeded = api.attempts(&format!("{of_acme} AND succeeded")).await;
    assert_eq!(api.all_ids(&format!("/audit-entries?{processed}&pageSize=9")).await, succeeded);
}

#[tokio::test]
async fn what_a_statement_records_beside_a_refused_result_is_found() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    // Whichever leads the others: each of a batch is refused once, for its lease has ended.
    for refused in 0..4 {
        let mut claimed = api.claimed(integration, 3, &["orders"]).await.remove(0);
        let late = api.store(event(integration)).await;
        let expired = api.claim_all(&[EventId::new(late)], "orders", Duration::ZERO).await.remove(0);
        claimed.insert(refused, expired);
        let results: Vec<_> =
            claimed.iter().map(|claimed| result(claimed, "orders", NextState::Succeeded)).collect();
        assert_eq!(api.record(&results).await, 3);
    }
    assert_eq!(api.check_attempt_entries().await, 12);
    api.check_attempts("integration=shop/acme", &format!("integration_id = '{integration}'")).await;
}

#[tokio::test]
async fn what_a_statement_records_beside_what_is_no_attempt_is_found() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let claimed = api.claimed(integration, 3, &["orders"]).await.remove(0);
    let mut results: Vec<_> = claimed.iter().map(|claimed| result(claimed, "orders", later())).collect();
    results[0].counts = false;
    assert_eq!(api.record(&results).await, 3);
    assert_eq!(api.check_attempt_entries().await, 2);
    api.check_attempts("integration=shop/acme&status=failed", "true").await;
}
