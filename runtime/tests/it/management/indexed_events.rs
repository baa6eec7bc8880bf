//! Events of a batch share an entry of the indexes by integration and by type, and each is found as if it had its own.

use std::collections::BTreeMap;

use grapnel_store::events::{IngestOutcome, NewEvent};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::harness::{Api, NOTHING, received_at};

const SLOT_MILLISECONDS: i64 = 16;

/// The events that an entry stands for, at most.
const MOST_EVENTS: usize = 10;

/// The beginning of a slot of time some minutes ago.
fn slot() -> Timestamp {
    let now = Timestamp::now().as_millisecond() - 180_000;
    Timestamp::from_millisecond(now - now % SLOT_MILLISECONDS).expect("a time")
}

fn after(time: Timestamp, milliseconds: i64) -> Timestamp {
    time + SignedDuration::from_millis(milliseconds)
}

fn typed(integration: Uuid, event_type: &str, received: Timestamp) -> NewEvent {
    NewEvent { event_type: event_type.to_owned(), ..received_at(integration, received) }
}

/// An event whose key is made of the provider's id.
fn keyed(integration: Uuid, external_id: &str, received: Timestamp) -> NewEvent {
    let idempotency_key = format!("{integration}:{external_id}");
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(&idempotency_key)[..16]);
    NewEvent {
        external_event_id: Some(external_id.to_owned()),
        idempotency_key,
        key_hash: Uuid::from_bytes(hash),
        ..received_at(integration, received)
    }
}

fn ids<'a>(events: impl IntoIterator<Item = &'a NewEvent>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = events.into_iter().map(|event| event.id.uuid()).collect();
    ids.sort();
    ids
}

impl Api {
    /// Returns how many entries the indexes have, and how many events these stand for.
    async fn index_entries(&self) -> (i64, i64) {
        let entries = self.database.count("SELECT count(*) FROM events WHERE indexed_events > 0").await;
        (entries, self.database.count("SELECT sum(indexed_events) FROM events").await)
    }

    /// Checks a list whole, and in pages that end within a slot.
    async fn check_indexed(&self, query: &str, ascending: &[Uuid]) {
        self.check_pages(query, ascending, "&pageSize=100", "&pageSize=7").await;
    }
}

#[tokio::test]
async fn each_event_of_a_batch_is_found_by_its_integration_and_its_type() {
    let api = Api::start().await;
    let (acme, globex) =
        (api.integration("acme", &["orders"]).await, api.integration("globex", &["orders"]).await);
    let slot = slot();
    let mut batch = Vec::new();
    for number in 0..30 {
        // In no order, over two slots.
        let at = |turn: i64| after(slot, (number * 7 + turn * 3) % 13 * 2);
        batch.push(typed(acme, "order.created", at(0)));
        batch.push(typed(acme, "order.paid", at(1)));
        batch.push(typed(globex, "order.created", at(2)));
    }
    api.store_batch_of(&mut batch).await;
    let mut groups = BTreeMap::<_, usize>::new();
    for event in &batch {
        let slot = event.received_at.as_millisecond() / SLOT_MILLISECONDS;
        *groups.entry((event.integration_id.uuid(), event.event_type.clone(), slot)).or_default() += 1;
    }
    assert!(groups.values().any(|events| *events > MOST_EVENTS), "{groups:?}");
    let expected: usize = groups.values().map(|events| events.div_ceil(MOST_EVENTS)).sum();
    assert_eq!(api.index_entries().await, (expected as i64, 90));
    let of = |integration: Uuid| move |event: &&NewEvent| event.integration_id.uuid() == integration;
    let with_type = |kind: &'static str| move |event: &&NewEvent| event.event_type == kind;

    api.check_indexed("integration=shop/acme", &ids(batch.iter().filter(of(acme)))).await;
    api.check_indexed("integration=shop/globex", &ids(batch.iter().filter(of(globex)))).await;
    api.check_indexed("namespace=shop", &ids(&batch)).await;
    let paid = ids(batch.iter().filter(with_type("order.paid")));
    api.check_indexed("namespace=shop&eventType=order.paid", &paid).await;
    api.check_indexed("integration=shop/globex&eventType=order.paid", &NOTHING).await;

    // Windows that begin and end within a slot, in the same one, and at its border.
    for (from, to) in [(2, 6), (6, 20), (0, 15), (0, 16), (16, 25), (8, 8)] {
        let (from, to) = (after(slot, from), after(slot, to));
        // The end is inclusive, to the millisecond.
        let is_within = |event: &&NewEvent| event.received_at >= from && event.received_at <= to;
        let window = format!("receivedFrom={from}&receivedTo={to}");
        let within = ids(batch.iter().filter(of(acme)).filter(is_within));
        api.check_indexed(&format!("integration=shop/acme&{window}"), &within).await;
        let within = ids(batch.iter().filter(with_type("order.created")).filter(is_within));
        api.check_indexed(&format!("namespace=shop&eventType=order.created&{window}"), &within).await;
    }
}

#[tokio::test]
async fn what_a_batch_stores_beside_a_duplicate_is_found() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let slot = slot();
    let mut stored = Vec::new();
    // Whichever leads the others: each of a batch is left out once.
    for known in 0..4 {
        let event = |number: i64| keyed(integration, &format!("evt-{known}-{number}"), after(slot, number));
        let mut batch: Vec<NewEvent> = (0..4).map(event).collect();
        batch.sort_by_key(|event| event.key_hash);
        let mut first =
            [keyed(integration, batch[known].external_event_id.as_deref().expect("an id"), after(slot, 9))];
        assert_eq!(api.store_batch_of(&mut first).await, [IngestOutcome::New]);
        let outcomes = api.store_batch_of(&mut batch).await;
        assert_eq!(outcomes[known], IngestOutcome::DuplicateOf(first[0].id));
        stored.extend(ids(&first));
        batch.remove(known);
        stored.extend(ids(&batch));
    }
    stored.sort();
    assert_eq!(api.index_entries().await.1, stored.len() as i64);
    api.check_indexed("integration=shop/acme", &stored).await;
}

#[tokio::test]
async fn a_provider_s_id_is_found_through_the_key_that_is_made_of_it() {
    let api = Api::start().await;
    let (acme, globex) =
        (api.integration("acme", &["orders"]).await, api.integration("globex", &["orders"]).await);
    let slot = slot();
    let other_key =
        NewEvent { external_event_id: Some("evt-1".to_owned()), ..received_at(acme, after(slot, 2)) };
    let mut batch = [
        keyed(acme, "evt-1", slot),
        keyed(globex, "evt-1", after(slot, 1)),
        other_key,
        keyed(acme, "evt-2", slot),
    ];
    api.store_batch_of(&mut batch).await;
    let in_index =
        "SELECT count(*) FROM events WHERE external_event_id IS NOT NULL AND NOT external_id_in_key";
    assert_eq!(api.database.count(in_index).await, 1);

    let of = |integration: Uuid| {
        let is_named = move |event: &&NewEvent| {
            event.external_event_id.as_deref() == Some("evt-1") && event.integration_id.uuid() == integration
        };
        ids(batch.iter().filter(is_named))
    };
    let mut both = [of(acme), of(globex)].concat();
    both.sort();
    api.check_indexed("externalEventId=evt-1", &both).await;
    api.check_indexed("externalEventId=evt-1&integration=shop/acme", &of(acme)).await;
    api.check_indexed("externalEventId=evt-1&integration=shop/globex", &of(globex)).await;
    api.check_indexed("externalEventId=evt-3", &NOTHING).await;
    let received = after(slot, 1);
    api.check_indexed(
        &format!("externalEventId=evt-1&receivedFrom={received}&receivedTo={received}"),
        &of(globex),
    )
    .await;
}
