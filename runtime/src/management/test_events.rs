//! `POST /integrations/{id}/test-events`.

use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use grapnel_core::ids::IntegrationId;
use grapnel_core::mapping::Mapper;
use grapnel_core::resolved_provider::{ResolvedProvider, former_mapping};
use grapnel_crds::IntegrationSpec;
use grapnel_store::integrations;
use grapnel_store::test_events::{NewTestEvent, TestEventOutcome, store};
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

/// The longest body, and with it the longest payload.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Destinations that may be named.
const MAX_DESTINATIONS: usize = 64;

/// The body of a request to send a test event.
#[derive(Debug, PartialEq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct TestEventBody {
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$")]
    event_type: String,
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\u0000]*$", nullable = false)]
    subject: Option<String>,
    /// What deliveries carry as the provider's payload; `{}` by default.
    #[schema(value_type = Option<serde_json::Value>, required = false)]
    payload: Value,
    /// Send it to these destinations only, instead of to all.
    #[schema(max_items = 64, nullable = false, required = false)]
    destinations: Vec<String>,
}

impl TestEventBody {
    /// Reads the members of a body.
    pub(super) fn of(members: &mut Map<String, Value>) -> Result<Self, ApiError> {
        let parsed = Self {
            event_type: body::text(members, "eventType", 1, 255)?
                .ok_or_else(|| ApiError::invalid("eventType", "is required"))?,
            subject: body::text(members, "subject", 1, 255)?,
            payload: members.remove("payload").unwrap_or_else(|| Value::Object(Map::new())),
            destinations: names(members.remove("destinations"))?,
        };
        match members.keys().next() {
            Some(unknown) => Err(ApiError::invalid(unknown, "is not a field of this body")),
            None => Ok(parsed),
        }
    }
}

fn names(value: Option<Value>) -> Result<Vec<String>, ApiError> {
    let invalid = || {
        let reason = format!("must be a list of at most {MAX_DESTINATIONS} names");
        ApiError::invalid("destinations", reason)
    };
    let Some(value) = value else { return Ok(Vec::new()) };
    let names: Vec<String> = serde_json::from_value(value).map_err(|_| invalid())?;
    let is_name = |name: &String| (1..=63).contains(&name.len()) && !name.contains('\0');
    if names.len() <= MAX_DESTINATIONS && names.iter().all(is_name) { Ok(names) } else { Err(invalid()) }
}

/// `data` of a test event that was stored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestEventSent {
    pub(crate) event_id: Uuid,
    /// The destinations that it is delivered to.
    pub(crate) destinations: Vec<String>,
}

/// Send a test event
///
/// An event is stored as if the provider had sent it, and delivered, with a header `x-grapnel-test: true` among those of its webhook. Filters of
/// destinations do not apply. It is audited, and never a duplicate.
#[utoipa::path(
    post, path = "/integrations/{id}/test-events", tag = "Integrations", operation_id = "sendTestEvent",
    params(("id" = uuid::Uuid, Path, description = "The integration's id")),
    request_body(content = TestEventBody, description = "At most 256 KiB"),
    responses(
        (status = 202, description = "The event was stored and will be delivered", body = Envelope<TestEventSent>),
        (status = 404, description = "There is no such integration", body = ErrorEnvelope),
        (status = 409, description = "The integration is disabled or was removed", body = ErrorEnvelope),
        (status = 413, description = "The body is too large", body = ErrorEnvelope),
        (status = 415, description = "The content-type is not JSON", body = ErrorEnvelope),
    ),
)]
pub(super) async fn send(
    State(state): State<ManagementState>,
    grant: Grant,
    PathId(id): PathId,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    let (parts, stream) = request.into_parts();
    let bytes = body::read_json(&parts.headers, stream, MAX_BODY_BYTES).await?;
    let body = TestEventBody::of(&mut body::members(&bytes)?)?;
    Ok(success(StatusCode::ACCEPTED, &store_and_wake(&state, &grant, id, body).await?))
}

pub(super) async fn store_and_wake(
    state: &ManagementState,
    grant: &Grant,
    id: Uuid,
    body: TestEventBody,
) -> Result<TestEventSent, ApiError> {
    let unknown = || answer::not_found("integration");
    let row = integrations::find(&state.db, IntegrationId::new(id)).await?.ok_or_else(unknown)?;
    let mapper = mapper(&row.row.spec).ok_or_else(|| {
        ApiError::new(ErrorCode::Conflict, "The integration's spec is not one that this version can read")
    })?;
    let event = NewTestEvent {
        integration_id: IntegrationId::new(id),
        provider: row.row.provider,
        event_type: body.event_type,
        subject: body.subject,
        payload_key: mapper.payload_name.to_string(),
        payload: serde_json::to_vec(&body.payload).map_err(|_| ApiError::internal())?,
        delivered_as: mapper.delivered_as,
        destinations: body.destinations,
        correlation_id: Uuid::now_v7().to_string(),
        requester: grant.requester.clone(),
    };
    match store(&state.db, &event).await? {
        TestEventOutcome::Stored(id, destinations) => {
            state.replays.notify_one();
            Ok(TestEventSent { event_id: id.uuid(), destinations })
        }
        TestEventOutcome::UnknownIntegration => Err(unknown()),
        TestEventOutcome::InactiveIntegration => {
            Err(ApiError::new(ErrorCode::Conflict, "The integration is disabled"))
        }
        TestEventOutcome::UnknownDestination(name) => {
            Err(ApiError::invalid("destinations", format!("the integration has no destination {name:?}")))
        }
    }
}

fn mapper(spec: &str) -> Option<Mapper> {
    let spec: IntegrationSpec = serde_json::from_str(spec).ok()?;
    Mapper::new(&ResolvedProvider::new(&spec).ok()?.mapping, &former_mapping(&spec))
}
