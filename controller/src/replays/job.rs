//! The job of a Replay: makes it once, and asks of it what the object asks.

use grapnel_core::ids::EventId;
use grapnel_core::replay::{DesiredState, ReplayDocument, ReplaySelect, ReplaySpec, at_least};
use grapnel_crds::conditions::replay::reason;
use grapnel_crds::{FieldError, Replay, ReplayOrder, ReplaySelection, ReplayState};
use grapnel_store::audit::{self, Requester};
use grapnel_store::replay_jobs::{
    ObjectReplay, ObjectReplayOutcome, ReplayJob, create_for_object, find_by_object, follow_object, load,
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ReplayContext;
use super::status::Standing;
use crate::error::CallError;
use crate::object::last_manager;

/// Brings the job to what the object asks for, and returns how the object stands.
pub(super) async fn settle(ctx: &ReplayContext, uid: Uuid, replay: &Replay) -> Result<Standing, CallError> {
    if let Some(job) = follow(ctx, uid, replay).await? {
        return Ok(Standing::Job(Box::new(job)));
    }
    // A job that was once reported is not made a second time, even if its row is gone.
    if replay.status.as_ref().is_some_and(|status| status.replay_id.is_some()) {
        return Ok(Standing::Lost);
    }
    create(ctx, uid, replay).await
}

/// Returns the job of the object, if it has one, after it has taken over what has changed in the object.
async fn follow(ctx: &ReplayContext, uid: Uuid, replay: &Replay) -> Result<Option<ReplayJob>, CallError> {
    let db = &ctx.shared.db;
    let asked = (desired_state(replay.spec.state), replay.spec.rate_per_second.unsigned_abs());
    if ctx.memory.with(uid, |memory| memory.followed == Some(asked)) {
        return ctx.shared.database(find_by_object(db, uid)).await;
    }
    let requester = applied_by(replay);
    let job = ctx.shared.database(follow_object(db, uid, asked.0, asked.1, &requester)).await?;
    if job.is_some() {
        ctx.memory.with(uid, |memory| memory.followed = Some(asked));
    }
    Ok(job)
}

async fn create(ctx: &ReplayContext, uid: Uuid, replay: &Replay) -> Result<Standing, CallError> {
    let spec = match job_spec(replay) {
        Ok(spec) => spec,
        Err(errors) => {
            let message = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Ok(Standing::Rejected { reason: reason::INVALID_SPEC, message });
        }
    };
    let (namespace, integration) =
        (replay.namespace().unwrap_or_default(), &replay.spec.integration_ref.name);
    let object = ObjectReplay {
        uid,
        namespace: namespace.clone(),
        name: replay.name_any(),
        integration: integration.clone(),
        spec,
        spec_hash: spec_hash(replay),
        run_id: replay.spec.run_id.clone(),
        desired_state: desired_state(replay.spec.state),
        is_dry_run: replay.spec.dry_run,
        expected_count: replay.spec.expected_count.map(|count| count.max(0).unsigned_abs().into()),
        requester: applied_by(replay),
    };
    let db = &ctx.shared.db;
    Ok(match ctx.shared.database(create_for_object(db, &object)).await? {
        ObjectReplayOutcome::Created(job) => {
            tracing::info!(namespace, name = object.name, replay.id = %job.id, "created a replay");
            Standing::Job(job)
        }
        // Another pass was faster, and may not have handed on what the object asks for by now.
        ObjectReplayOutcome::Existing(job) => {
            Standing::Job(follow(ctx, uid, replay).await?.map_or(job, Box::new))
        }
        ObjectReplayOutcome::RanAlready(earlier) => {
            let earlier = ctx.shared.database(load(db, earlier)).await?;
            Standing::Rejected { reason: reason::ALREADY_RAN, message: already_ran(earlier.as_ref()) }
        }
        ObjectReplayOutcome::UnknownIntegration => Standing::waiting(
            reason::INTEGRATION_NOT_FOUND,
            format!("the namespace {namespace} has no registered Integration {integration}"),
        ),
        ObjectReplayOutcome::Disabled => Standing::waiting(
            reason::INTEGRATION_DISABLED,
            format!("the Integration {integration} is disabled, so nothing is delivered"),
        ),
        ObjectReplayOutcome::UnknownDestination(name) => Standing::waiting(
            reason::DESTINATION_NOT_FOUND,
            format!("the Integration {integration} has no destination {name}"),
        ),
        ObjectReplayOutcome::LimitExceeded(matched) => Standing::Rejected {
            reason: reason::LIMIT_REACHED,
            message: format!(
                "at least {matched} deliveries match, and spec.maxDeliveries is {}",
                replay.spec.max_deliveries
            ),
        },
        ObjectReplayOutcome::UnexpectedCount { matched, is_exact } => Standing::Rejected {
            reason: reason::UNEXPECTED_COUNT,
            message: format!(
                "{}{matched} deliveries match, and spec.expectedCount is {}",
                at_least(is_exact),
                replay.spec.expected_count.unwrap_or_default()
            ),
        },
        ObjectReplayOutcome::Counted { matched, is_exact } => Standing::Counted { matched, is_exact },
        ObjectReplayOutcome::TooMany => Standing::waiting(
            reason::TOO_MANY_REPLAYS,
            "as many replays as the platform allows are unfinished; this one begins when one has ended"
                .to_owned(),
        ),
    })
}

fn already_ran(earlier: Option<&ReplayJob>) -> String {
    let earlier =
        earlier.map_or_else(String::new, |job| format!(" as {}, which is {}", job.id, job.state.as_str()));
    format!("a Replay of this name and spec ran before{earlier}; set another spec.runId to run it again")
}

/// Returns the actor of what the object asks for: the field manager that wrote its spec last.
fn applied_by(replay: &Replay) -> Requester {
    match last_manager(&replay.metadata) {
        Some(name) => Requester::unseen(audit::manager(name)),
        None => Requester::unseen(audit::CONTROLLER),
    }
}

fn desired_state(state: ReplayState) -> DesiredState {
    match state {
        ReplayState::Running => DesiredState::Running,
        ReplayState::Paused => DesiredState::Paused,
        ReplayState::Cancelled => DesiredState::Cancelled,
    }
}

/// Returns what the job selects, or the fields that are wrong. Only events from before the object are selected, whenever the job is
/// made.
fn job_spec(replay: &Replay) -> Result<ReplaySpec, Vec<FieldError>> {
    let created = replay.metadata.creation_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let named = |field: String, message: String| FieldError { field: format!("spec.{field}"), message };
    let checked = document(replay).and_then(|document| document.check(created));
    checked.map_err(|errors| errors.into_iter().map(|error| named(error.field, error.message)).collect())
}

fn document(replay: &Replay) -> Result<ReplayDocument, Vec<FieldError>> {
    let spec = &replay.spec;
    let non_empty = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let event_id = |(position, id): (usize, &String)| -> Result<EventId, FieldError> {
        let invalid = |error: uuid::Error| FieldError {
            field: format!("eventIds[{position}]"),
            message: error.to_string(),
        };
        id.parse().map(EventId::new).map_err(invalid)
    };
    let event_ids = spec
        .event_ids
        .as_ref()
        .map(|ids| ids.iter().enumerate().map(event_id).collect::<Result<Vec<_>, _>>());
    Ok(ReplayDocument {
        select: Some(match spec.select {
            ReplaySelection::Failed => ReplaySelect::Failed,
            ReplaySelection::Filtered => ReplaySelect::Filtered,
            ReplaySelection::Missing => ReplaySelect::Missing,
            ReplaySelection::All => ReplaySelect::All,
        }),
        destinations: non_empty(&spec.destinations),
        event_types: non_empty(&spec.event_types),
        subject: spec.subject.clone(),
        http_status: spec.http_status.map(|status| u16::try_from(status).unwrap_or_default()),
        error_contains: spec.error_contains.clone(),
        filter: spec.filter.clone(),
        received_after: spec.received_after.as_ref().map(|time| time.0),
        received_before: spec.received_before.as_ref().map(|time| time.0),
        event_ids: event_ids.transpose().map_err(|error| vec![error])?,
        rate_per_second: Some(u32::try_from(spec.rate_per_second).unwrap_or_default()),
        max_deliveries: Some(u64::try_from(spec.max_deliveries).unwrap_or_default()),
        order: Some(match spec.order {
            ReplayOrder::OldestFirst => grapnel_core::replay::ReplayOrder::OldestFirst,
            ReplayOrder::NewestFirst => grapnel_core::replay::ReplayOrder::NewestFirst,
        }),
        reason: Some(spec.reason.clone()),
    })
}

/// Returns a hash of what makes two specs the same replay: all but what may be changed, and the runId, which is compared by itself.
///
/// It is stored, so it must not change between versions: a field that is added later must be absent where it has its default.
fn spec_hash(replay: &Replay) -> String {
    let mut spec = serde_json::to_value(&replay.spec).unwrap_or(Value::Null);
    if let Some(fields) = spec.as_object_mut() {
        for field in ["state", "ratePerSecond", "ttlSecondsAfterFinished", "runId", "dryRun", "expectedCount"]
        {
            fields.remove(field);
        }
        fields.sort_keys();
    }
    hex::encode(Sha256::digest(spec.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replay(more: Value) -> Replay {
        let mut object = json!({
            "apiVersion": "grapnel.dev/v1alpha1", "kind": "Replay",
            "metadata": {"name": "outage", "namespace": "shop", "creationTimestamp": "2026-11-23T10:00:00Z"},
            "spec": {"integrationRef": {"name": "orders"}, "select": "Failed", "receivedAfter": "2026-11-23T08:00:00Z",
                     "reason": "the receiver was down"},
        });
        for (name, value) in more.as_object().expect("an object") {
            object["spec"][name] = value.clone();
        }
        serde_json::from_value(object).expect("a Replay")
    }

    #[test]
    fn the_window_ends_when_the_object_was_created_and_not_later() {
        let created: Timestamp = "2026-11-23T10:00:00Z".parse().expect("a time");
        let end = |more| job_spec(&replay(more)).expect("a valid spec").received_before;
        assert_eq!(end(json!({})), created);
        assert_eq!(end(json!({"receivedBefore": "2027-01-01T00:00:00Z"})), created);
        let earlier: Timestamp = "2026-11-23T09:00:00Z".parse().expect("a time");
        assert_eq!(end(json!({"receivedBefore": "2026-11-23T09:00:00Z"})), earlier);
    }

    #[test]
    fn what_the_definition_cannot_check_is_reported_with_its_field() {
        let fields = |more| -> Vec<String> {
            let errors = job_spec(&replay(more)).expect_err("an invalid spec");
            errors.into_iter().map(|error| error.field).collect()
        };
        assert_eq!(fields(json!({"filter": "payload.total >"})), ["spec.filter"]);
        assert_eq!(fields(json!({"receivedAfter": "2026-11-23T11:00:00Z"})), ["spec.receivedAfter"]);
        assert_eq!(fields(json!({"select": "Missing", "httpStatus": 500})), ["spec.httpStatus"]);
        assert_eq!(fields(json!({"ratePerSecond": -1})), ["spec.ratePerSecond"]);
    }

    /// The hash is in databases.
    #[test]
    fn the_hash_is_of_what_cannot_be_changed_and_always_the_same() {
        let hash = |more| spec_hash(&replay(more));
        let known = hash(json!({}));
        assert_eq!(known, "99d4c8546225b75ce2e0d1afb467ed2b58140d542430700f788edc93bea6db55");
        for same in [
            json!({"state": "Paused"}),
            json!({"ratePerSecond": 7}),
            json!({"ttlSecondsAfterFinished": 60}),
            json!({"runId": "2"}),
            json!({"maxDeliveries": 10000}),
            json!({"dryRun": true}),
            json!({"expectedCount": 7}),
        ] {
            assert_eq!(hash(same.clone()), known, "{same}");
        }
        for other in
            [json!({"select": "All"}), json!({"reason": "another reason"}), json!({"destinations": ["a"]})]
        {
            assert_ne!(hash(other.clone()), known, "{other}");
        }
    }
}
