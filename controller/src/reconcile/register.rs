//! Registers an Integration: resolves its Secrets, writes the row by which the api and the workers know it, and claims
//! its route with it.
//!
//! The row is compared first and written only if it would change. A row is compiled before it is written, exactly as
//! the data plane compiles it. The database decides who owns a route, and rejects older generations and older leaders.

use std::collections::BTreeSet;

use grapnel_core::delivery::service_endpoints::{ServiceEndpoints, ServicePort};
use grapnel_core::error_chain::chain;
use grapnel_core::integration::{
    CompileError, CompiledIntegration, FILE_UID_PREFIX, IntegrationRow, RowIdentity, RowState, spec_text,
};
use grapnel_core::secrets::IntegrationSecrets;
use grapnel_crds::conditions::reason;
use grapnel_crds::{Integration, IntegrationSpec, IntegrationState, ScalingMode};
use grapnel_store::audit::{self, ObjectEnd};
use grapnel_store::integrations::retire;
use grapnel_store::integrations::waiting::{WaitingDeliveries, waiting_for};
use grapnel_store::integrations::{self as rows, StoredRow, UpsertOutcome};
use kube::ResourceExt;
use kube::runtime::events::EventType;

use super::StepOutcome;
use super::secrets::{ResolvedSecrets, SecretResolutionError, resolve_secrets};
use crate::context::Context;
use crate::error::CallError;
use crate::object::{integration_id, last_manager};
use crate::report::events;
use crate::report::observation::{Observation, StepProblem, StepStatus};
use crate::services::services_of;

/// Registers an Integration whose row may be out of date. Passes have many causes, and most of them do not concern the
/// row.
///
/// `endpoints` are the addresses of its Services; `None` if they could not be read.
pub async fn register(
    ctx: &Context,
    integration: &Integration,
    endpoints: Option<&ServiceEndpoints>,
    observed: &mut Observation,
) -> Result<StepOutcome, CallError> {
    let (id, generation, now) = (integration_id(integration), integration.metadata.generation, ctx.now());
    let (is_current, secret_changes, warning) = ctx.memory.with(id, |memory| {
        let registration = &memory.registration;
        (
            registration.is_current(generation, now),
            registration.secret_changes(),
            registration.secret_warning(),
        )
    });
    if is_current {
        observed.secret_warning = warning;
        (observed.secrets, observed.registered) = (StepStatus::Done, StepStatus::Done);
        return Ok(StepOutcome::Continue);
    }
    let (secrets, warning) = match resolve_secrets(ctx, integration).await {
        Ok(ResolvedSecrets { secrets, warning }) => (secrets, warning),
        Err(SecretResolutionError::Problem(problem)) => {
            observed.secrets = StepStatus::Failed(problem);
            disable_row(ctx, integration, endpoints).await?;
            return Ok(StepOutcome::Blocked);
        }
        Err(SecretResolutionError::Call(error)) => return Err(error),
    };
    observed.secrets = StepStatus::Done;
    observed.secret_warning.clone_from(&warning);
    let registration = match compare_and_write(ctx, integration, &secrets, endpoints).await {
        Ok(registration) => registration,
        Err(error) => {
            let problem = StepProblem::transient(reason::DATABASE_UNAVAILABLE, "PostgreSQL is not available");
            observed.registered = StepStatus::Failed(problem);
            return Err(error);
        }
    };
    (observed.accepted, observed.secrets) = (registration.accepted, registration.secrets);
    observed.registered = registration.registered;
    if observed.registered != StepStatus::Done {
        return Ok(StepOutcome::Blocked);
    }
    ctx.memory.with(id, |memory| memory.registration.record(generation, secret_changes, warning, ctx.now()));
    if registration.previous.is_some_and(|previous| is_scale_ignored(&previous, &integration.spec)) {
        let note = "spec.workers.replicas has no effect while spec.workers.scaling.mode is Auto";
        let event = events::event(EventType::Warning, "Scale", events::SCALE_IGNORED, note);
        events::publish(&ctx.recorder, integration, &[event]).await;
    }
    Ok(StepOutcome::Continue)
}

/// The conditions that follow from comparing and writing a row.
#[derive(Debug)]
struct RegistrationOutcome {
    accepted: StepStatus,
    secrets: StepStatus,
    registered: StepStatus,
    /// The previous spec of the row, if it was replaced.
    previous: Option<IntegrationSpec>,
}

impl RegistrationOutcome {
    fn rejected(problem: StepProblem) -> Self {
        Self {
            accepted: StepStatus::Failed(problem),
            secrets: StepStatus::Done,
            registered: StepStatus::NotTried,
            previous: None,
        }
    }

    fn not_registered(problem: StepProblem) -> Self {
        Self { registered: StepStatus::Failed(problem), ..Self::done(None) }
    }

    fn done(previous: Option<IntegrationSpec>) -> Self {
        Self { accepted: StepStatus::Done, secrets: StepStatus::Done, registered: StepStatus::Done, previous }
    }
}

/// Claims the route and writes the row, if it would change.
async fn compare_and_write(
    ctx: &Context,
    integration: &Integration,
    secrets: &IntegrationSecrets,
    endpoints: Option<&ServiceEndpoints>,
) -> Result<RegistrationOutcome, CallError> {
    let found = ctx.database(rows::find(&ctx.db, integration_id(integration))).await?;
    if found.as_ref().is_some_and(|found| is_up_to_date(ctx, found, integration, secrets)) {
        return Ok(RegistrationOutcome::done(None));
    }
    let sealed = secrets.seal(&ctx.keys, integration_id(integration));
    let row = row(ctx, integration, sealed, endpoints_text(integration, endpoints, found.as_ref()));
    if let Err(error) = CompiledIntegration::compile(row.clone(), &ctx.keys) {
        return Ok(compile_problem(&error));
    }
    write(ctx, integration, row, found).await
}

/// Disables the row of an Integration that is to be disabled, even though its Secrets cannot be read: the row keeps the
/// secrets that it has.
async fn disable_row(
    ctx: &Context,
    integration: &Integration,
    endpoints: Option<&ServiceEndpoints>,
) -> Result<(), CallError> {
    if integration.spec.state != IntegrationState::Disabled {
        return Ok(());
    }
    let found = ctx.database(rows::find(&ctx.db, integration_id(integration))).await?;
    let is_enabled = |found: &StoredRow| !found.deleted && found.row.state != RowState::Disabled;
    if let Some(found) = found.filter(is_enabled) {
        let endpoints = endpoints_text(integration, endpoints, Some(&found));
        let row = row(ctx, integration, found.row.secrets.clone(), endpoints);
        write(ctx, integration, row, Some(found)).await?;
    }
    Ok(())
}

async fn write(
    ctx: &Context,
    integration: &Integration,
    row: IntegrationRow,
    found: Option<StoredRow>,
) -> Result<RegistrationOutcome, CallError> {
    let destinations: Vec<String> =
        integration.spec.destinations.iter().map(|destination| destination.name.clone()).collect();
    if let Some(found) = found.as_ref().filter(|found| !found.deleted) {
        warn_of_waiting(ctx, integration, found, &destinations).await?;
    }
    let actor = applied_by(integration, found.as_ref());
    let mut outcome = ctx.database(rows::upsert(&ctx.db, &row, &destinations, &actor)).await?;
    if outcome == UpsertOutcome::NameTaken && retire_namesake(ctx, integration).await? {
        outcome = ctx.database(rows::upsert(&ctx.db, &row, &destinations, &actor)).await?;
    }
    Ok(match outcome {
        UpsertOutcome::Applied => {
            tracing::info!(integration.id = %row.id, generation = row.generation, "registered");
            let previous = found.filter(|found| !found.deleted);
            RegistrationOutcome::done(previous.and_then(|found| serde_json::from_str(&found.row.spec).ok()))
        }
        UpsertOutcome::RouteTaken => RegistrationOutcome::rejected(StepProblem::stalled(
            reason::ROUTE_CONFLICT,
            format!("the route {} belongs to another Integration; choose another route", row.route),
        )),
        UpsertOutcome::RouteKept { until } => RegistrationOutcome::rejected(StepProblem::stalled(
            reason::ROUTE_CONFLICT,
            format!(
                "the route {} was freed by another namespace and stays its own until {until:.0}; choose another route",
                row.route
            ),
        )),
        UpsertOutcome::NameTaken => RegistrationOutcome::not_registered(StepProblem::stalled(
            reason::NAME_CONFLICT,
            "an Integration that was applied from a file has this namespace and name",
        )),
        UpsertOutcome::Superseded => {
            let current = ctx.database(rows::find(&ctx.db, row.id)).await?;
            if current.is_some_and(|current| current.row.writer_epoch > row.writer_epoch) {
                return Err(CallError::Superseded);
            }
            let message = "a newer generation is already registered";
            RegistrationOutcome::not_registered(StepProblem::stalled(reason::SUPERSEDED, message))
        }
    })
}

/// Returns who changed what the row is written for: the field manager of a new generation. Whatever else changes a row, such as a
/// Secret, is followed by the controller itself.
fn applied_by(integration: &Integration, found: Option<&StoredRow>) -> String {
    let is_new = found
        .is_none_or(|found| found.deleted || Some(found.row.generation) != integration.metadata.generation);
    match last_manager(&integration.metadata).filter(|_| is_new) {
        Some(name) => audit::manager(name),
        None => audit::CONTROLLER.to_owned(),
    }
}

/// Publishes an Event about deliveries that end because their destination is no longer in the spec, before they end.
async fn warn_of_waiting(
    ctx: &Context,
    integration: &Integration,
    found: &StoredRow,
    destinations: &[String],
) -> Result<(), CallError> {
    let removed = found.row.removed_destinations(destinations);
    if removed.is_empty() {
        return Ok(());
    }
    let waiting = ctx.database(waiting_for(&ctx.db, found.row.id, &removed)).await?;
    if let Some(warning) = WaitingDeliveries::warning(&waiting) {
        let event = events::event(EventType::Warning, "Reconcile", events::DESTINATION_REMOVED, &warning);
        events::publish(&ctx.recorder, integration, &[event]).await;
    }
    Ok(())
}

/// Retires the row of another object with the same namespace and name, and returns whether there was one. In a cluster
/// these are unique, so that object no longer exists; a row from a file is left alone.
async fn retire_namesake(ctx: &Context, integration: &Integration) -> Result<bool, CallError> {
    let (namespace, name) = (integration.namespace_or_default(), integration.name_any());
    let holder = ctx.database(retire::holder_of_name(&ctx.db, &namespace, &name)).await?;
    let Some(holder) = holder.filter(|holder| !holder.uid.starts_with(FILE_UID_PREFIX)) else {
        return Ok(false);
    };
    tracing::warn!(integration.id = %holder.id, "retiring the row of an object that no longer exists");
    let (epoch, end) = (ctx.leadership.epoch, ObjectEnd::default());
    ctx.database(retire::retire(&ctx.db, holder.id, epoch, audit::CONTROLLER, &end)).await?;
    Ok(true)
}

fn is_up_to_date(
    ctx: &Context,
    found: &StoredRow,
    integration: &Integration,
    secrets: &IntegrationSecrets,
) -> bool {
    let row = &found.row;
    let same_secrets =
        || IntegrationSecrets::open(&ctx.keys, row.id, &row.secrets).is_ok_and(|known| known == *secrets);
    !found.deleted
        && Some(row.generation) == integration.metadata.generation
        && row.state == RowState::from(integration.spec.state)
        && row.spec == spec_text(&integration.spec)
        && has_services_of(row, integration)
        && !ctx.keys.needs_reseal(&row.secrets)
        && same_secrets()
}

/// Returns whether a row has the Services of the spec. Their addresses are followed on their own.
fn has_services_of(row: &IntegrationRow, integration: &Integration) -> bool {
    let wanted: BTreeSet<ServicePort> = services_of(integration).into_iter().collect();
    let stored = row.endpoints.as_deref().map(ServiceEndpoints::parse);
    match stored {
        None => wanted.is_empty(),
        Some(stored) => !wanted.is_empty() && stored.is_ok_and(|stored| stored.services().eq(wanted.iter())),
    }
}

/// Returns the addresses to write with a row. Those that could not be read are as the row has them.
fn endpoints_text(
    integration: &Integration,
    read: Option<&ServiceEndpoints>,
    found: Option<&StoredRow>,
) -> Option<String> {
    let services = services_of(integration);
    if services.is_empty() {
        return None;
    }
    let stored = found.and_then(|found| ServiceEndpoints::parse(found.row.endpoints.as_deref()?).ok());
    let known = read.cloned().or(stored).unwrap_or_default();
    let mut endpoints = ServiceEndpoints::default();
    for service in services {
        let addresses = known.of(&service).unwrap_or_default().to_vec();
        endpoints.set(service, addresses);
    }
    Some(endpoints.to_text())
}

fn row(
    ctx: &Context,
    integration: &Integration,
    secrets: Vec<u8>,
    endpoints: Option<String>,
) -> IntegrationRow {
    let identity = RowIdentity {
        id: integration_id(integration),
        uid: integration.metadata.uid.clone().unwrap_or_default(),
        generation: integration.metadata.generation.unwrap_or_default(),
        writer_epoch: ctx.leadership.epoch,
    };
    IntegrationRow { endpoints, ..IntegrationRow::new(integration, identity, secrets) }
}

/// Reports a row that the data plane could not use. It is not written.
fn compile_problem(error: &CompileError) -> RegistrationOutcome {
    let message = chain(error);
    match error {
        CompileError::UnknownProvider(_) => {
            RegistrationOutcome::rejected(StepProblem::stalled(reason::UNSUPPORTED_PROVIDER, message))
        }
        CompileError::Secrets(_) | CompileError::Verification(_) | CompileError::DestinationSecret { .. } => {
            RegistrationOutcome {
                secrets: StepStatus::Failed(StepProblem::stalled(reason::SECRET_INVALID, message)),
                registered: StepStatus::NotTried,
                ..RegistrationOutcome::done(None)
            }
        }
        CompileError::Filters(_) => {
            RegistrationOutcome::rejected(StepProblem::stalled(reason::FILTER_INVALID, message))
        }
        CompileError::Spec(_)
        | CompileError::Endpoints(_)
        | CompileError::Provider(_)
        | CompileError::Destination { .. } => {
            RegistrationOutcome::rejected(StepProblem::stalled(reason::INVALID_SPEC, message))
        }
    }
}

/// Returns whether someone scaled an Integration that scales automatically.
fn is_scale_ignored(before: &IntegrationSpec, after: &IntegrationSpec) -> bool {
    let is_auto = |spec: &IntegrationSpec| spec.workers.scaling.mode == ScalingMode::Auto;
    is_auto(before) && is_auto(after) && before.workers.replicas != after.workers.replicas
}
