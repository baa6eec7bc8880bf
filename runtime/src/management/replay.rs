//! `POST /events/{id}/replay`.

use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::authorize::Grant;
use super::path::PathId;
use super::query::Query;
use super::{ManagementState, answer, body};
use crate::http::envelope::{ApiError, Envelope, ErrorCode, ErrorEnvelope, success};
use grapnel_core::ids::EventId;
use grapnel_store::audit::is_system_actor;
use grapnel_store::replays::{LeftOut, NewReplay, ReplayOutcome, ReplayedDelivery, request_replay};

const MAX_BODY_BYTES: usize = 16 * 1024;

/// The body of a request to replay.
#[derive(Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct ReplayBody {
    /// The one who asks, as the caller says; `api-user` by default. The audit trail names the one who was authenticated. The names of Grapnel's own components, such as `system`, are reserved.
    #[schema(min_length = 2, max_length = 120, pattern = r"^[^\u0000]*$", nullable = false)]
    requested_by: Option<String>,
    /// The reason, for the audit trail.
    #[schema(min_length = 5, max_length = 500, pattern = r"^[^\u0000]*$")]
    reason: String,
    /// Deliver to this destination only, instead of to all of the event's. It may be one that the Integration got after the
    /// event, such as the new name of a renamed one: a delivery to it is added.
    #[schema(min_length = 1, max_length = 63, pattern = r"^[^\u0000]*$", nullable = false)]
    destination: Option<String>,
}

impl ReplayBody {
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        Self::of(&mut body::members(bytes)?)
    }

    /// Reads the members, which must be the known ones.
    pub(super) fn of(members: &mut Map<String, Value>) -> Result<Self, ApiError> {
        let parsed = Self {
            requested_by: body::text(members, "requestedBy", 2, 120)?,
            reason: body::text(members, "reason", 5, 500)?
                .ok_or_else(|| ApiError::invalid("reason", "is required"))?,
            destination: body::text(members, "destination", 1, 63)?,
        };
        if parsed.requested_by.as_deref().is_some_and(is_system_actor) {
            return Err(ApiError::invalid("requestedBy", "is reserved for a component of Grapnel"));
        }
        match members.keys().next() {
            Some(unknown) => Err(ApiError::invalid(unknown, "is not a field of this body")),
            None => Ok(parsed),
        }
    }
}

/// `data` of an accepted replay.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplayAccepted {
    pub(crate) replay_request_id: Uuid,
    pub(crate) event_id: Uuid,
    /// What becomes of each delivery that was asked for, by destination.
    pub(crate) destinations: Vec<ReplayedDestination>,
}

/// What a replay does for one destination.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplayedDestination {
    pub(crate) name: String,
    /// Whether the event is delivered to it again.
    pub(crate) will_send: bool,
    /// Why it is not.
    #[schema(required)]
    pub(crate) because: Option<LeftOutBecause>,
}

/// Why a replay leaves a destination out.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum LeftOutBecause {
    /// The Integration no longer has it.
    Removed,
    /// Its filter left the event out, and the replay does not name it.
    Filtered,
}

impl From<ReplayedDelivery> for ReplayedDestination {
    fn from(delivery: ReplayedDelivery) -> Self {
        let because = delivery.left_out.map(|left_out| match left_out {
            LeftOut::Removed => LeftOutBecause::Removed,
            LeftOut::Filtered => LeftOutBecause::Filtered,
        });
        Self { name: delivery.destination, will_send: because.is_none(), because }
    }
}

/// Deliver an event again
///
/// The request is stored and audited before anything is sent. A delivery that waits for a retry becomes due at once, and
/// one in flight counts as the replay's own. Attempts count on, with a fresh budget. Destinations that the integration no
/// longer has are left out, and so are those whose filter left the event out, unless the body names one; the answer says which.
#[utoipa::path(
    post, path = "/events/{id}/replay", tag = "Replays", operation_id = "replayEvent",
    params(("id" = uuid::Uuid, Path, description = "The event's id")),
    request_body(content = ReplayBody, description = "At most 16 KiB"),
    responses(
        (status = 202, description = "The replay was stored and will be delivered", body = Envelope<ReplayAccepted>),
        (status = 404, description = "There is no such event", body = ErrorEnvelope),
        (status = 409, description = "The integration was removed or is disabled, or it no longer has the destination, or filters left the event out and none is named, or the event was erased", body = ErrorEnvelope),
        (status = 413, description = "The body is too large", body = ErrorEnvelope),
        (status = 415, description = "The content-type is not JSON", body = ErrorEnvelope),
    ),
)]
pub(super) async fn request(
    State(state): State<ManagementState>,
    grant: Grant,
    PathId(event_id): PathId,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    let (parts, stream) = request.into_parts();
    let bytes = body::read_json(&parts.headers, stream, MAX_BODY_BYTES).await?;
    let accepted = ask(&state, &grant, event_id, ReplayBody::parse(&bytes)?).await?;
    Ok(success(StatusCode::ACCEPTED, &accepted))
}

/// Requests a replay.
pub(super) async fn ask(
    state: &ManagementState,
    grant: &Grant,
    event_id: Uuid,
    body: ReplayBody,
) -> Result<ReplayAccepted, ApiError> {
    let ReplayBody { requested_by, reason, destination } = body;
    let requested_by = requested_by.unwrap_or_else(|| "api-user".to_owned());
    let replay = NewReplay {
        event_id: EventId::new(event_id),
        destination,
        requested_by,
        reason,
        requester: grant.requester.clone(),
    };
    match request_replay(&state.db, &replay).await? {
        ReplayOutcome::Accepted(replay_request_id, deliveries) => {
            state.replays.notify_one();
            let destinations = deliveries.into_iter().map(ReplayedDestination::from).collect();
            let replay_request_id = replay_request_id.uuid();
            Ok(ReplayAccepted { replay_request_id, event_id, destinations })
        }
        ReplayOutcome::UnknownEvent => Err(answer::not_found("event")),
        ReplayOutcome::UnknownDestination => {
            Err(ApiError::invalid("destination", "neither the event nor its integration has it"))
        }
        ReplayOutcome::InactiveIntegration => {
            Err(ApiError::new(ErrorCode::Conflict, "The event's integration was removed or is disabled"))
        }
        ReplayOutcome::RemovedDestination => {
            let message = "The event's integration no longer has the destination; name one that it has";
            Err(ApiError::new(ErrorCode::Conflict, message))
        }
        ReplayOutcome::Erased => Err(ApiError::new(ErrorCode::Conflict, "The event was erased")),
        ReplayOutcome::Filtered => {
            let message = "Filters left the event out; name the destination to deliver it to";
            Err(ApiError::new(ErrorCode::Conflict, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_read() {
        let body = br#"{"reason":"because","requestedBy":"me","destination":"orders"}"#;
        let parsed = ReplayBody::parse(body).unwrap();
        assert_eq!(parsed.requested_by.as_deref(), Some("me"));
        assert_eq!(parsed.reason, "because");
        assert_eq!(parsed.destination.as_deref(), Some("orders"));
        // Characters are counted, not bytes.
        assert!(ReplayBody::parse("{\"reason\":\"ééééé\"}".as_bytes()).is_ok());
    }

    #[test]
    fn refusal_names_the_field() {
        let check = |body: &str, field: &str| {
            let refused = ReplayBody::parse(body.as_bytes()).unwrap_err();
            assert!(
                format!("{refused:?}").contains(&format!("\"field\": String(\"{field}\")")),
                "{body}: {refused:?}"
            );
        };
        check("", "body");
        check("[]", "body");
        check("{", "body");
        check("{}", "reason");
        check(r#"{"reason":null}"#, "reason");
        check(r#"{"reason":"1234"}"#, "reason");
        check(&format!(r#"{{"reason":"{}"}}"#, "x".repeat(501)), "reason");
        check(r#"{"reason":"nul \u0000 in it"}"#, "reason");
        check(r#"{"reason":"12345","requestedBy":"x"}"#, "requestedBy");
        check(r#"{"reason":"12345","requestedBy":7}"#, "requestedBy");
        check(r#"{"reason":"12345","requestedBy":"grapnel-controller"}"#, "requestedBy");
        check(r#"{"reason":"12345","destination":""}"#, "destination");
        check(r#"{"reason":"12345","extra":1}"#, "extra");
    }
}
