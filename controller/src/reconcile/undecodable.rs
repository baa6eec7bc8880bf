//! An object that this version cannot read, such as one that was stored under another definition of the resource.
//!
//! It is left alone: its row, queues and workers go on as they are, and the other objects do not notice. Its conditions
//! say what cannot be read. Nothing is written while they say so.

use grapnel_crds::Integration;
use grapnel_crds::conditions::{self, FALSE, TRUE, condition, reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::context::{CallError, Context, MANAGER, Watched};
use crate::reconcile::{RESYNC, object_ref};
use crate::status::whole_seconds;
use crate::{backoff, events, metrics};

/// A message is for people; what cannot be read may be long.
const MAX_MESSAGE_BYTES: usize = 512;

/// Says so in the object's conditions, if they do not yet.
pub async fn report(ctx: &Context, object: &Watched, invalid: &InvalidObject) -> Result<Action, CallError> {
    metrics::undecodable();
    let again = Action::requeue(backoff::jittered(RESYNC, rand::random()));
    let resource = ApiResource::erase::<Integration>(&());
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &namespace, &resource);
    let Some(found) = ctx.api(api.get_opt(&name)).await? else { return Ok(again) };
    if found.uid() != object.uid() {
        return Ok(again);
    }
    let before = &found.data["status"];
    let message = message(&invalid.error);
    let status = status(before, &message, found.metadata.generation, Timestamp::now());
    if status == *before {
        return Ok(again);
    }
    tracing::error!(integration = %object_ref(object), error = %invalid.error, "an object cannot be read");
    ctx.leading()?;
    let patch = json!({
        "apiVersion": grapnel_crds::API_VERSION,
        "kind": grapnel_crds::KIND,
        "metadata": {"name": name, "uid": found.metadata.uid},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    ctx.api(api.patch_status(&name, &parameters, &Patch::Apply(&patch))).await?;
    metrics::status_written();
    let event = events::event(EventType::Warning, "Reconcile", reason::INVALID_SPEC, &message);
    events::publish_about(&ctx.recorder, &found.object_ref(&resource), &[event]).await;
    Ok(again)
}

fn message(error: &str) -> String {
    let text = format!("the object cannot be read: {error}");
    let end =
        text.char_indices().map(|(start, _)| start).take_while(|start| *start <= MAX_MESSAGE_BYTES).last();
    if text.len() <= MAX_MESSAGE_BYTES { text } else { text[..end.unwrap_or_default()].to_owned() }
}

/// The status that is there, with the conditions that are known to be so.
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
    fn what_was_told_stays_and_nothing_is_told_twice() {
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
        assert_eq!(message("x"), "the object cannot be read: x");
        assert!(message(&"→".repeat(1000)).len() <= MAX_MESSAGE_BYTES);
    }
}
