//! How replay requests end, also when there are several for one event.

use std::time::Duration;

use grapnel_core::delivery::state::NextState;
use grapnel_core::ids::ReplayId;
use uuid::Uuid;

use super::harness::{Api, event, for_destinations, later};
use super::replay::{dispatch, replay, replay_to};

async fn status(api: &Api, request: Uuid) -> String {
    let read = api.get(&format!("/replay-requests/{request}")).await;
    read.json["data"]["status"].as_str().unwrap_or_else(|| panic!("{}", read.body)).to_owned()
}

/// An event whose deliveries to `a` and `b` failed.
async fn failed_event(api: &Api) -> Uuid {
    let integration = api.integration("acme", &["a", "b"]).await;
    let id = api.store(for_destinations(event(integration), &["a", "b"])).await;
    api.attempt(id, "a", NextState::Failed).await;
    api.attempt(id, "b", NextState::Failed).await;
    id
}

#[tokio::test]
async fn a_replay_ends_when_all_its_deliveries_have() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    for (end_of_b, expected) in [(NextState::Failed, "failed"), (NextState::Succeeded, "completed")] {
        let request = replay(&api, id).await;
        assert_eq!(dispatch(&api).await, 2);
        api.attempt(id, "a", NextState::Succeeded).await;
        assert_eq!(status(&api, request).await, "dispatched");
        api.attempt(id, "b", NextState::RetryAfter(Duration::ZERO)).await;
        assert_eq!(status(&api, request).await, "dispatched");
        assert_eq!(dispatch(&api).await, 1);
        api.attempt(id, "b", end_of_b).await;
        assert_eq!(status(&api, request).await, expected);
        let ended = format!("replay.{expected}");
        assert_eq!(api.actions(request).await, ["replay.requested", "replay.dispatched", &ended]);
    }
}

#[tokio::test]
async fn a_replay_is_dispatched_when_its_last_delivery_is() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    let request = replay(&api, id).await;
    let take_one = async || {
        let taken = grapnel_store::deliveries::take_due(&api.db, 1).await.unwrap();
        grapnel_store::replays::mark_dispatched(&api.db, &[taken[0].replay_request_id.unwrap()])
            .await
            .unwrap();
    };
    take_one().await;
    assert_eq!(status(&api, request).await, "queued");
    take_one().await;
    assert_eq!(status(&api, request).await, "dispatched");
    // Once.
    grapnel_store::replays::mark_dispatched(&api.db, &[ReplayId::new(request)]).await.unwrap();
    assert_eq!(api.actions(request).await, ["replay.requested", "replay.dispatched"]);
}

#[tokio::test]
async fn a_replay_that_ends_before_it_was_marked_was_dispatched_too() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    let request = replay_to(&api, id, "a").await;
    assert_eq!(grapnel_store::deliveries::take_due(&api.db, 10).await.unwrap().len(), 1);
    api.attempt(id, "a", NextState::Succeeded).await;
    assert_eq!(status(&api, request).await, "completed");
    grapnel_store::replays::mark_dispatched(&api.db, &[ReplayId::new(request)]).await.unwrap();
    assert_eq!(status(&api, request).await, "completed");
    assert_eq!(api.actions(request).await, ["replay.requested", "replay.dispatched", "replay.completed"]);
}

#[tokio::test]
async fn final_states_never_change() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    let first = replay_to(&api, id, "a").await;
    dispatch(&api).await;
    api.attempt(id, "a", NextState::Failed).await;
    assert_eq!(status(&api, first).await, "failed");
    let second = replay_to(&api, id, "a").await;
    dispatch(&api).await;
    api.attempt(id, "a", NextState::Succeeded).await;
    grapnel_store::replays::settle_leftovers(&api.db).await.unwrap();
    assert_eq!(status(&api, first).await, "failed");
    assert_eq!(status(&api, second).await, "completed");
    assert_eq!(api.actions(first).await.len(), 3);
    assert_eq!(api.actions(second).await.len(), 3);
}

#[tokio::test]
async fn an_older_replay_shares_the_fate_of_what_was_taken_from_it() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    let older = replay(&api, id).await;
    let newer = replay(&api, id).await;
    assert!(newer > older);
    assert_eq!(dispatch(&api).await, 2);
    assert_eq!(
        (status(&api, older).await, status(&api, newer).await),
        ("dispatched".into(), "dispatched".into())
    );
    api.attempt(id, "a", NextState::Succeeded).await;
    api.attempt(id, "b", NextState::Failed).await;
    assert_eq!((status(&api, older).await, status(&api, newer).await), ("failed".into(), "failed".into()));
}

#[tokio::test]
async fn replays_of_different_destinations_end_on_their_own() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    let all = replay(&api, id).await;
    let only_b = replay_to(&api, id, "b").await;
    let only_a = replay_to(&api, id, "a").await;
    dispatch(&api).await;
    api.attempt(id, "b", NextState::Succeeded).await;
    assert_eq!(status(&api, only_b).await, "completed");
    assert_eq!(
        (status(&api, all).await, status(&api, only_a).await),
        ("dispatched".into(), "dispatched".into())
    );
    api.attempt(id, "a", NextState::Failed).await;
    assert_eq!((status(&api, all).await, status(&api, only_a).await), ("failed".into(), "failed".into()));
    assert_eq!(status(&api, only_b).await, "completed");
}

#[tokio::test]
async fn two_workers_that_end_the_last_two_deliveries_end_the_replay() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    let request = replay(&api, id).await;
    dispatch(&api).await;
    let (a, b) = (api.claim(id, "a").await, api.claim(id, "b").await);
    let (one, two) =
        tokio::join!(api.finish(&a, "a", NextState::Succeeded), api.finish(&b, "b", NextState::Succeeded));
    assert!(one && two);
    assert_eq!(status(&api, request).await, "completed");
}

#[tokio::test]
async fn what_a_crash_left_unsettled_is_found() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    let left = replay_to(&api, id, "a").await;
    let waiting = replay_to(&api, id, "b").await;
    dispatch(&api).await;
    api.execute("UPDATE deliveries SET status = 'succeeded', finished_at = now(), queued_at = NULL, due_at = NULL, last_error = NULL WHERE destination = 'a'")
        .await;
    grapnel_store::replays::settle_leftovers(&api.db).await.unwrap();
    assert_eq!(status(&api, left).await, "completed");
    assert_eq!(status(&api, waiting).await, "dispatched");
    grapnel_store::replays::settle_leftovers(&api.db).await.unwrap();
    assert_eq!(api.actions(left).await.len(), 3);
    // An event that is gone ends what was asked of it.
    api.execute("DELETE FROM deliveries").await;
    grapnel_store::replays::settle_leftovers(&api.db).await.unwrap();
    assert_eq!(status(&api, waiting).await, "failed");
}

#[tokio::test]
async fn a_removed_integration_ends_its_replays() {
    let api = Api::start().await;
    let id = failed_event(&api).await;
    let request = replay(&api, id).await;
    let integration: String = api.get(&format!("/events/{id}")).await.json["data"]["event"]["integrationId"]
        .as_str()
        .unwrap()
        .into();
    assert!(
        grapnel_store::integrations::remove(&api.db, integration.parse().unwrap(), "test").await.unwrap()
    );
    assert_eq!(status(&api, request).await, "failed");
}

#[tokio::test]
async fn a_replay_in_flight_has_the_whole_budget_after_it() {
    let api = Api::start().await;
    let integration = api.integration("acme", &["orders"]).await;
    let id = api.store(event(integration)).await;
    api.attempt(id, "orders", later()).await;
    api.execute("UPDATE deliveries SET queued_at = now(), due_at = NULL").await;
    let claimed = api.claim(id, "orders").await;
    let request = replay(&api, id).await;
    // The worker that holds the claim thinks that the attempts are used up.
    assert!(api.finish(&claimed, "orders", NextState::Failed).await);
    assert_eq!(api.get(&format!("/events/{id}/status")).await.json["data"]["status"], "retrying");
    assert_eq!(status(&api, request).await, "dispatched");
}
