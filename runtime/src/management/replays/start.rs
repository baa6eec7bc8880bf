//! `POST /replays`: a replay begins, or is only counted.

use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use grapnel_core::replay::{ReplaySpec, at_least};
use grapnel_crds::FieldError;
use grapnel_store::replay_jobs::{NewReplayJob, PlanOutcome, ReplayPlan, ReplayTarget, create, plan};
use grapnel_store::views::IntegrationRef;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value};

pub(crate) use self::estimate::{EstimateView, EstimatedDestinationView};
use self::request::{NewReplay, ReplayBody, invalid, target_of};
use super::MAX_BODY_BYTES;
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::{ApiError, Envelope, ErrorCode, ErrorEnvelope, success};
use crate::management::authorize::{Grant, Visible};
use crate::management::model::ReplayView;
use crate::management::query::Query;
use crate::management::rights::Resource;
use crate::management::{ManagementState, answer, body};

mod request;
mod estimate;

/// Returns what a body is about, for the decision whether the caller may ask for it. The rest of it is not read.
pub(in crate::management) fn target(bytes: &[u8]) -> Result<ReplayTarget, ApiError> {
    target_of(&mut body::members(bytes)?)
}

/// Returns what the members of a body are about.
pub(in crate::management) fn target_in(members: &Map<String, Value>) -> Result<ReplayTarget, ApiError> {
    target_of(&mut members.clone())
}

/// Start a replay
///
/// Deliveries become due again with fresh attempts, at a rate, and never more at a time than a quarter of what their destination takes. The
/// replay goes on by itself, whatever is restarted; `GET /replays/{id}` says how far it is. With `dryRun` nothing is stored, and the answer
/// says what would be delivered.
#[utoipa::path(
    post, path = "/replays", tag = "Replays", operation_id = "startReplay",
    request_body(content = NewReplay, description = "At most 16 KiB"),
    responses(
        (status = 200, description = "What would be delivered, for a dry run", body = Envelope<EstimateView>),
        (status = 202, description = "The replay was stored and begins", body = Envelope<ReplayView>),
        (status = 404, description = "There is no such Integration", body = ErrorEnvelope),
        (status = 409, description = "More deliveries match than `maxDeliveries`, or not as many as expected, or the Integration is disabled, or too many replays are unfinished", body = ErrorEnvelope),
        (status = 413, description = "The body is too large", body = ErrorEnvelope),
        (status = 415, description = "The content-type is not JSON", body = ErrorEnvelope),
    ),
)]
pub(in crate::management) async fn start(
    State(state): State<ManagementState>,
    grant: Grant,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, ApiError> {
    Query::none(raw.as_deref())?;
    let (parts, stream) = request.into_parts();
    let bytes = body::read_json(&parts.headers, stream, MAX_BODY_BYTES).await?;
    Ok(match begin(&state, grant, body::members(&bytes)?).await? {
        Begun::Counted(estimate) => success(StatusCode::OK, &estimate),
        Begun::Started(replay) => success(StatusCode::ACCEPTED, &replay),
    })
}

/// What came of a request.
pub(crate) enum Begun {
    /// For a dry run.
    Counted(EstimateView),
    Started(Box<ReplayView>),
}

pub(in crate::management) async fn begin(
    state: &ManagementState,
    grant: Grant,
    members: Map<String, Value>,
) -> Result<Begun, ApiError> {
    let ReplayBody { target, document, is_dry_run, expected_count, requested_by } = ReplayBody::of(members)?;
    let spec = document.check(Timestamp::now()).map_err(|errors| first(&errors))?;
    check_payloads(&grant, &spec)?;
    let plan = plan_of(plan(&state.db, &target, spec).await?, &target)?;
    if is_dry_run {
        let shows_samples = grant.payloads != Visible::Of(Vec::new());
        return Ok(Begun::Counted(EstimateView::new(&plan, shows_samples)));
    }
    check_counts(&plan, expected_count)?;
    let new = NewReplayJob { plan, requested_by, requester: grant.requester };
    match create(&state.db, &new).await? {
        Some(job) => Ok(Begun::Started(Box::new(ReplayView::from(job)))),
        None => {
            let message = "Too many replays are unfinished: wait for some to end, or cancel them";
            Err(ApiError::new(ErrorCode::Conflict, message).retry_after(RETRY_AFTER_SECONDS))
        }
    }
}

fn first(errors: &[FieldError]) -> ApiError {
    errors.first().map_or_else(ApiError::internal, invalid)
}

/// Who may not see payloads could ask for their text letter by letter.
fn check_payloads(grant: &Grant, spec: &ReplaySpec) -> Result<(), ApiError> {
    match spec.reads_payloads() {
        Some(field) if grant.payloads == Visible::Of(Vec::new()) => {
            let right = Resource::Payloads.name();
            let message = format!("The right to get {right}.grapnel.dev is needed for {field}");
            Err(ApiError::new(ErrorCode::Forbidden, message))
        }
        _ => Ok(()),
    }
}

fn plan_of(outcome: PlanOutcome, target: &ReplayTarget) -> Result<ReplayPlan, ApiError> {
    let conflict = |message: String| Err(ApiError::new(ErrorCode::Conflict, message));
    match outcome {
        PlanOutcome::Planned(plan) => Ok(*plan),
        PlanOutcome::UnknownIntegration => Err(match target {
            ReplayTarget::Integration(IntegrationRef::Id(_) | IntegrationRef::Name { .. }) => {
                answer::not_found("integration")
            }
            ReplayTarget::Namespace(_) => {
                ApiError::new(ErrorCode::NotFound, "The namespace has no Integration")
            }
        }),
        PlanOutcome::UnknownDestination(name) => {
            Err(ApiError::invalid("destinations", format!("there is no destination {name}")))
        }
        PlanOutcome::Disabled => conflict("The Integration is disabled: nothing is delivered".to_owned()),
        PlanOutcome::TooManyDestinations(count) => {
            conflict(format!("It would have {count} destinations: name an integration, or destinations"))
        }
    }
}

fn check_counts(plan: &ReplayPlan, expected: Option<u64>) -> Result<(), ApiError> {
    let (matched, at_least) = (plan.matched(), at_least(plan.is_exact));
    if plan.is_over_limit() {
        let max = plan.spec.max_deliveries;
        let message =
            format!("{at_least}{matched} deliveries match, and maxDeliveries is {max}: name a larger one");
        return Err(ApiError::new(ErrorCode::Conflict, message));
    }
    match expected {
        Some(expected) if !plan.is_as_expected(expected) => {
            let message = format!("{at_least}{matched} deliveries match, and {expected} were expected");
            Err(ApiError::new(ErrorCode::Conflict, message))
        }
        _ => Ok(()),
    }
}
