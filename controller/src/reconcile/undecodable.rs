//! Reports an object that this version cannot decode, such as one that was stored under another definition of the
//! resource.
//!
//! It is left alone: its row, queues and workers stay as they are, and other objects are not affected. Its conditions
//! say what cannot be decoded. Nothing is written while they already say so.

use grapnel_crds::conditions::{self, FALSE, TRUE, condition, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::RESYNC;
use crate::api::{apply_status, dynamic_integrations};
use crate::context::Context;
use crate::error::CallError;
use crate::object::{WatchedObject, object_ref, whole_seconds};
use crate::report::events;
use crate::{backoff, metrics};

/// The error may contain a long value; the message is meant to be read by people.
const MAX_MESSAGE_BYTES: usize = 512;

/// Sets the object's conditions, if they do not report the error yet.
pub async fn report_undecodable(
    ctx: &Context,
    object: &WatchedObject,
    invalid: &InvalidObject,
) -> Result<Action, CallError> {
    metrics::undecodable();
    let resync = Action::requeue(backoff::jittered(RESYNC, rand::random()));
    let (api, resource) = dynamic_integrations(ctx, &object.namespace().unwrap_or_default());
    let Some(found) = ctx.api(api.get_opt(&object.name_any())).await? else { return Ok(resync) };
    if found.uid() != object.uid() {
        return Ok(resync);
    }
    let before = &found.data["status"];
    let message = message(&invalid.error);
    let status = status(before, &message, found.metadata.generation, Timestamp::now());
    if status == *before {
        return Ok(resync);
    }
    tracing::error!(integration = %object_ref(object), error = %invalid.error, "cannot decode an object");
    apply_status(ctx, &found, &status).await?;
    let event = events::event(EventType::Warning, "Reconcile", reason::INVALID_SPEC, &message);
    events::publish_about(&ctx.recorder, &found.object_ref(&resource), &[event]).await;
    Ok(resync)
}

fn message(error: &str) -> String {
    let text = format!("the object cannot be decoded: {error}");
    let end =
        text.char_indices().map(|(start, _)| start).take_while(|start| *start <= MAX_MESSAGE_BYTES).last();
    if text.len() <= MAX_MESSAGE_BYTES { text } else { text[..end.unwrap_or_default()].to_owned() }
}

/// Returns the previous status with the conditions that follow from the error.
fn status(before: &Value, message: &str, generation: Option<i64>, now: Timestamp) -> Value {
    let mut list: Vec<Condition> = serde_json::from_value(before["conditions"].clone()).unwrap_or_default();
    for (type_, status) in
        [(condition::ACCEPTED, FALSE), (condition::READY, FALSE), (condition::STALLED, TRUE)]
    {
        conditions::set(
            &mut list,
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason::INVALID_SPEC.to_owned(),
                message: message.to_owned(),
                observed_generation: generation,
                last_transition_time: Time(whole_seconds(now)),
            },
        );
    }
    conditions::clear(&mut list, condition::RECONCILING);
    let mut status = if before.is_object() { before.clone() } else { json!({}) };
    status["conditions"] = json!(list);
    status["observedGeneration"] = json!(generation);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_conditions_stay_and_nothing_is_reported_twice() {
        let now = |second| Timestamp::from_second(second).unwrap();
        let before = json!({"integrationId": "1", "conditions": [
            {"type": "Ready", "status": "True", "reason": "AsDesired", "message": "", "lastTransitionTime": "2026-11-24T10:00:00Z"},
            {"type": "Reconciling", "status": "True", "reason": "Progressing", "message": "", "lastTransitionTime": "2026-11-24T10:00:00Z"},
        ]});
        let once = status(&before, "why", Some(2), now(10));
        assert_eq!((&once["integrationId"], &once["observedGeneration"]), (&json!("1"), &json!(2)));
        let types: Vec<_> =
            once["conditions"].as_array().unwrap().iter().map(|it| it["type"].clone()).collect();
        assert_eq!(types.len(), 3, "{types:?}");
        assert_eq!(status(&once, "why", Some(2), now(99)), once);
        assert_ne!(status(&once, "why", Some(3), now(99)), once);
        assert!(status(&Value::Null, "why", None, now(0))["conditions"].is_array());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(message("x"), "the object cannot be decoded: x");
        assert!(message(&"→".repeat(1000)).len() <= MAX_MESSAGE_BYTES);
    }
}
