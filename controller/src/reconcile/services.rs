//! Finds the addresses of the Services that an Integration delivers to, all of them in its own namespace.

use grapnel_core::delivery::service_endpoints::ServiceEndpoints;
use grapnel_crds::Integration;
use grapnel_crds::conditions::reason;

use crate::context::Context;
use crate::memory::ServicesMemory;
use crate::object::integration_id;
use crate::report::observation::{Observation, StepProblem, StepStatus};
use crate::services::services_of;

/// Returns the addresses of the Services of an Integration; `None` if they cannot be read yet. The first problem is reported.
pub async fn resolve_services(
    ctx: &Context,
    integration: &Integration,
    observed: &mut Observation,
) -> Option<ServiceEndpoints> {
    let services = services_of(integration);
    if services.is_empty() {
        return None;
    }
    let namespace = integration.namespace_or_default();
    let remember =
        |services| ctx.memory.with(integration_id(integration), |memory| memory.services = services);
    let Some(caches) = ctx.services.filled(&namespace).await else {
        let message = format!("the Services of the namespace {namespace} have not been read yet");
        observed.services = StepStatus::Failed(StepProblem::transient(reason::SERVICES_UNREADABLE, message));
        remember(ServicesMemory::Unread);
        return None;
    };
    let resolved = ctx.services.resolve(&caches, &namespace, &services);
    observed.services = match &resolved.problem {
        None => StepStatus::Done,
        Some(problem) => StepStatus::Failed(StepProblem::stalled(problem.reason, &problem.message)),
    };
    remember(ServicesMemory::Read(resolved.problem));
    Some(resolved.endpoints)
}
