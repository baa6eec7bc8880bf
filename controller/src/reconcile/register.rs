//! Writes the row by which the api and the workers know an Integration, and claims its route with it.
//!
//! The row is compared first and written only when it would say something new. What is written was compiled as the
//! data plane compiles it. The database decides whose route it is, and refuses older generations and older leaders.

use grapnel::integrations::{CompileError, Integration as Compiled};
use grapnel::secrets::Secrets;
use grapnel::store::integrations::{self as rows, Found, IntegrationRow, Written};
use grapnel::store::retire;
use grapnel_crds::conditions::reason;
use grapnel_crds::{Integration, IntegrationSpec, IntegrationState, ScalingMode};
use kube::ResourceExt;

use crate::context::{CallError, Context};
use crate::status::{Problem, Step};

/// What registering came to.
#[derive(Debug)]
pub struct Registered {
    pub accepted: Step,
    pub secrets: Step,
    pub registered: Step,
    /// The spec that the row had before, when it was replaced.
    pub before: Option<IntegrationSpec>,
}

impl Registered {
    fn refused(accepted: Problem) -> Self {
        let accepted = Step::Failed(accepted);
        Self { accepted, secrets: Step::Done, registered: Step::Untried, before: None }
    }

    fn done(before: Option<IntegrationSpec>) -> Self {
        Self { accepted: Step::Done, secrets: Step::Done, registered: Step::Done, before }
    }
}

/// Claims the route and writes the row, if it says anything new.
pub async fn register(
    ctx: &Context,
    integration: &Integration,
    secrets: &Secrets,
) -> Result<Registered, CallError> {
    let found = ctx.database(rows::find(&ctx.pool, integration.id())).await?;
    if found.as_ref().is_some_and(|found| is_current(ctx, found, integration, secrets)) {
        return Ok(Registered::done(None));
    }
    let row = row(ctx, integration, secrets.seal(&ctx.keys, integration.id()));
    if let Err(error) = Compiled::compile(row.clone(), &ctx.keys) {
        return Ok(unusable(&error));
    }
    write(ctx, integration, row, found).await
}

/// Turns an Integration off whose Secrets cannot be read: the row keeps the secrets that it has.
pub async fn disable(ctx: &Context, integration: &Integration) -> Result<(), CallError> {
    let found = ctx.database(rows::find(&ctx.pool, integration.id())).await?;
    let is_on = |found: &Found| !found.deleted && found.row.state != word(IntegrationState::Disabled);
    if let Some(found) = found.filter(is_on) {
        let row = row(ctx, integration, found.row.secrets.clone());
        write(ctx, integration, row, Some(found)).await?;
    }
    Ok(())
}

async fn write(
    ctx: &Context,
    integration: &Integration,
    row: IntegrationRow,
    found: Option<Found>,
) -> Result<Registered, CallError> {
    let destinations: Vec<String> =
        integration.spec.destinations.iter().map(|destination| destination.name.clone()).collect();
    let mut written =
        ctx.database(rows::upsert(&ctx.pool, &row, &destinations, crate::context::MANAGER)).await?;
    if written == Written::NameTaken && retire_namesake(ctx, integration).await? {
        written = ctx.database(rows::upsert(&ctx.pool, &row, &destinations, crate::context::MANAGER)).await?;
    }
    Ok(match written {
        Written::Applied => {
            tracing::info!(integration.id = %row.id, generation = row.generation, "registered");
            let before = found.filter(|found| !found.deleted);
            Registered::done(before.and_then(|before| serde_json::from_str(&before.row.spec).ok()))
        }
        Written::RouteTaken => Registered::refused(Problem::stalled(
            reason::ROUTE_CONFLICT,
            format!("the route {} belongs to another Integration; choose another route", row.route),
        )),
        Written::NameTaken => Registered {
            registered: Step::Failed(Problem::stalled(
                reason::NAME_CONFLICT,
                "an Integration that was applied from a file has this namespace and name",
            )),
            ..Registered::done(None)
        },
        Written::Superseded => {
            let newer_leader = ctx.database(rows::find(&ctx.pool, row.id)).await?;
            if newer_leader.is_some_and(|newer| newer.row.writer_epoch > row.writer_epoch) {
                return Err(CallError::Superseded);
            }
            Registered {
                registered: Step::Failed(Problem::stalled(
                    reason::SUPERSEDED,
                    "a newer generation is already registered",
                )),
                ..Registered::done(None)
            }
        }
    })
}

/// An object has one namespace and name with the cluster's consent, so a row of another object with the same is left from
/// one that is gone. Answers whether there was such a row; one from a file is somebody else's.
async fn retire_namesake(ctx: &Context, integration: &Integration) -> Result<bool, CallError> {
    let (namespace, name) = (integration.namespace_or_default(), integration.name_any());
    let holder = ctx.database(retire::holder_of_name(&ctx.pool, &namespace, &name)).await?;
    let Some(holder) = holder.filter(|holder| !holder.uid.starts_with(grapnel::apply::FILE_UID)) else {
        return Ok(false);
    };
    tracing::warn!(integration.id = %holder.id, "retiring the row of an object that is gone");
    ctx.database(retire::retire(&ctx.pool, holder.id, ctx.lead.epoch, crate::context::MANAGER)).await?;
    Ok(true)
}

fn is_current(ctx: &Context, found: &Found, integration: &Integration, secrets: &Secrets) -> bool {
    let row = &found.row;
    let same_secrets = || Secrets::open(&ctx.keys, row.id, &row.secrets).is_ok_and(|known| known == *secrets);
    !found.deleted
        && Some(row.generation) == integration.metadata.generation
        && row.state == word(integration.spec.state)
        && row.spec == spec_text(integration)
        && !ctx.keys.needs_reseal(&row.secrets)
        && same_secrets()
}

fn row(ctx: &Context, integration: &Integration, secrets: Vec<u8>) -> IntegrationRow {
    IntegrationRow {
        id: integration.id(),
        uid: integration.metadata.uid.clone().unwrap_or_default(),
        namespace: integration.namespace_or_default(),
        name: integration.name_any(),
        generation: integration.metadata.generation.unwrap_or_default(),
        writer_epoch: ctx.lead.epoch,
        provider: integration.spec.provider.clone(),
        route: integration.route().to_owned(),
        display_name: integration.display_name().to_owned(),
        state: word(integration.spec.state).to_owned(),
        spec: spec_text(integration),
        secrets,
    }
}

fn spec_text(integration: &Integration) -> String {
    serde_json::to_string(&integration.spec).expect("a spec has only string keys")
}

fn word(state: IntegrationState) -> &'static str {
    match state {
        IntegrationState::Active => "Active",
        IntegrationState::DeliveryPaused => "DeliveryPaused",
        IntegrationState::Disabled => "Disabled",
    }
}

/// A row that the data plane could not use is not written.
fn unusable(error: &CompileError) -> Registered {
    let message = grapnel::telemetry::chain(error);
    match error {
        CompileError::UnknownProvider(_) => {
            Registered::refused(Problem::stalled(reason::UNSUPPORTED_PROVIDER, message))
        }
        CompileError::Secrets(_) | CompileError::Verification(_) | CompileError::Signing { .. } => {
            Registered {
                secrets: Step::Failed(Problem::stalled(reason::SECRET_INVALID, message)),
                registered: Step::Untried,
                ..Registered::done(None)
            }
        }
        CompileError::Spec(_) | CompileError::Provider(_) | CompileError::Destination { .. } => {
            Registered::refused(Problem::stalled(reason::INVALID_SPEC, message))
        }
    }
}

/// Whether someone scaled an Integration that scales itself.
pub fn scale_was_ignored(before: &IntegrationSpec, after: &IntegrationSpec) -> bool {
    let is_auto = |spec: &IntegrationSpec| spec.workers.scaling.mode == ScalingMode::Auto;
    is_auto(before) && is_auto(after) && before.workers.replicas != after.workers.replicas
}
