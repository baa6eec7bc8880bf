//! Reports an object that this version cannot decode, such as one that was stored under another definition of the
//! resource.
//!
//! It is left alone: what was made for it stays as it is, and other objects are not affected. Its conditions say what cannot be
//! decoded. Nothing is written while they already say so.

use grapnel_crds::conditions::{FALSE, TRUE, condition, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::RESYNC;
use crate::api::{Kind, apply_status, dynamic_api};
use crate::context::Context;
use crate::error::CallError;
use crate::object::whole_seconds;
use crate::report::events;
use crate::{backoff, metrics};

/// The error may contain a long value; the message is meant to be read by people.
const MAX_MESSAGE_BYTES: usize = 512;

/// The conditions of an Integration that cannot be decoded.
pub const OF_INTEGRATION: [(&str, &str); 3] =
    [(condition::ACCEPTED, FALSE), (condition::READY, FALSE), (condition::STALLED, TRUE)];

/// Returns when to look at such an object again.
pub fn next_look() -> Action {
    Action::requeue(backoff::jittered(RESYNC, rand::random()))
}

/// Sets these conditions of the object, if they do not report the error yet. Returns the status that it has then; `None`: there is no such object
/// any more.
pub async fn report_undecodable<K: Kind>(
    ctx: &Context,
    object: &impl ResourceExt,
    invalid: &InvalidObject,
    conditions: &[(&str, &str)],
) -> Result<Option<Value>, CallError> {
    metrics::undecodable();
    let (api, resource) = dynamic_api::<K>(ctx, &object.namespace().unwrap_or_default());
    let Some(found) = ctx.api(api.get_opt(&object.name_any())).await? else { return Ok(None) };
    if found.uid() != object.uid() {
        return Ok(None);
    }
    let before = &found.data["status"];
    let message = message(&invalid.error);
    let status = status(before, conditions, &message, found.metadata.generation, Timestamp::now());
    if status == *before {
        return Ok(Some(status));
    }
    let (kind, namespace, name) = (K::kind(&()), object.namespace().unwrap_or_default(), object.name_any());
    tracing::error!(%kind, namespace, name, error = %invalid.error, "cannot decode an object");
    apply_status::<K>(ctx, &found, &status).await?;
    let event = events::event(EventType::Warning, "Reconcile", reason::INVALID_SPEC, &message);
    events::publish_about(&ctx.recorder, &found.object_ref(&resource), &[event]).await;
    Ok(Some(status))
}

fn message(error: &str) -> String {
    let text = format!("the object cannot be decoded: {error}");
    let end =
        text.char_indices().map(|(start, _)| start).take_while(|start| *start <= MAX_MESSAGE_BYTES).last();
    if text.len() <= MAX_MESSAGE_BYTES { text } else { text[..end.unwrap_or_default()].to_owned() }
}

/// Returns the previous status with the conditions that follow from the error.
fn status(
    before: &Value,
    conditions: &[(&str, &str)],
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Value {
    let mut list: Vec<Condition> = serde_json::from_value(before["conditions"].clone()).unwrap_or_default();
    for (type_, status) in conditions {
        grapnel_crds::conditions::set(
            &mut list,
            Condition {
                type_: (*type_).to_owned(),
                status: (*status).to_owned(),
                reason: reason::INVALID_SPEC.to_owned(),
                message: message.to_owned(),
                observed_generation: generation,
                last_transition_time: Time(whole_seconds(now)),
            },
        );
    }
    grapnel_crds::conditions::clear(&mut list, condition::RECONCILING);
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
        let status =
            |before: &Value, generation, now| status(before, &OF_INTEGRATION, "why", generation, now);
        let once = status(&before, Some(2), now(10));
        assert_eq!((&once["integrationId"], &once["observedGeneration"]), (&json!("1"), &json!(2)));
        let types: Vec<_> =
            once["conditions"].as_array().unwrap().iter().map(|it| it["type"].clone()).collect();
        assert_eq!(types.len(), 3, "{types:?}");
        assert_eq!(status(&once, Some(2), now(99)), once);
        assert_ne!(status(&once, Some(3), now(99)), once);
        assert!(status(&Value::Null, None, now(0))["conditions"].is_array());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(message("x"), "the object cannot be decoded: x");
        assert!(message(&"→".repeat(1000)).len() <= MAX_MESSAGE_BYTES);
    }
}
