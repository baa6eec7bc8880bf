//! The status of an Integration: a function of the outcomes of the steps and of the previous status.
//!
//! Invariants: the same observation gives the same status, so a status is written only when something changed; a
//! time changes only together with what it dates; no message contains a secret. Ready means that webhooks are accepted
//! and delivered as the spec asks: an Integration that is paused, disabled or scaled to zero is ready.

use grapnel_crds::conditions::{self, FALSE, TRUE, UNKNOWN, condition, reason};
use grapnel_crds::{
    Integration, IntegrationState, IntegrationStatus, RouteStatus, ScalingMode, ScalingStatus, WorkersStatus,
    names,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use url::Url;

use crate::filter_problems::{self, FilterProblem};
use crate::object::{integration_id, whole_seconds};
use crate::replicas::ScalingCondition;
use crate::report::observation::{
    CaptureStatus, DeletionPhase, Observation, ObservedScaling, ObservedWorkers, StepStatus,
};
use crate::unused_secrets::verification_status;

/// Builds the status to report now.
pub fn status(
    integration: &Integration,
    observed: &Observation,
    public_url: Option<&Url>,
    now: Timestamp,
) -> IntegrationStatus {
    let before = integration.status.clone().unwrap_or_default();
    let mut list =
        ConditionList { conditions: before.conditions, generation: integration.metadata.generation, now };
    let steps = [
        (condition::ACCEPTED, &observed.accepted),
        (condition::SECRETS_RESOLVED, &observed.secrets),
        (condition::REGISTERED, &observed.registered),
        (condition::QUEUES_READY, &observed.queues),
    ];
    // The conditions that held before the deletion are left as they were reported.
    let is_live = observed.deletion.is_none();
    for (type_, step) in steps.into_iter().filter(|_| is_live) {
        let (status, reason, message) = step_condition(step);
        list.set(type_, status, reason, &message);
    }
    if !delivers_to_services(integration) {
        conditions::clear(&mut list.conditions, condition::SERVICES_RESOLVED);
    } else if is_live {
        let (status, reason, message) = step_condition(&observed.services);
        list.set(condition::SERVICES_RESOLVED, status, reason, &message);
    }
    if let Some(warning) = observed.warning.filter(|_| is_live && observed.accepted == StepStatus::Done) {
        list.set(condition::ACCEPTED, TRUE, reason::DOUBTFUL_SCHEME, warning);
    }
    let secret_warning = observed.secret_warning.as_ref();
    if let Some(warning) = secret_warning.filter(|_| is_live && observed.secrets == StepStatus::Done) {
        list.set(condition::SECRETS_RESOLVED, TRUE, reason::DOUBTFUL_SECRET, warning);
    }
    // Before the spec is accepted, the workers are those of an earlier one.
    if is_live && observed.accepted == StepStatus::Done {
        let message = observed.restricted.as_deref();
        list.set_while(
            condition::RESTRICTED,
            message.is_some(),
            reason::NOT_PERMITTED,
            message.unwrap_or_default(),
        );
    }
    if let Some(gone) = observed.gone.as_ref().filter(|_| is_live) {
        list.set_while(condition::DESTINATION_GONE, !gone.is_empty(), reason::GONE, &gone_message(gone));
    }
    let (available, why, message) = workers_available(&observed.workers);
    list.set(condition::WORKERS_AVAILABLE, available, why, &message);
    if is_live {
        set_scaling_active(&mut list, &observed.scaling);
    }
    let summary = summarize(integration, observed);
    list.set(condition::READY, summary.status, summary.reason, &summary.message);
    list.set_while(condition::RECONCILING, summary.reconciling, summary.reason, &summary.message);
    list.set_while(condition::STALLED, summary.stalled, summary.reason, &summary.message);
    match &observed.capture {
        CaptureStatus::Unknown => {}
        CaptureStatus::NonePending => list.set_while(condition::CAPTURE_WAITING, false, "", ""),
        CaptureStatus::Pending(problem) => {
            list.set_while(condition::CAPTURE_WAITING, true, problem.reason, &problem.message);
        }
    }
    if is_live {
        set_filters_healthy(&mut list, integration, observed.filter_problems.as_deref());
    }
    IntegrationStatus {
        observed_generation: integration.metadata.generation,
        conditions: list.conditions,
        integration_id: Some(integration_id(integration).to_string()),
        route: if is_live {
            (observed.accepted == StepStatus::Done).then(|| route_status(integration, public_url))
        } else {
            before.route
        },
        verification: verification_status(integration, observed.unused_secrets.clone(), before.verification),
        workers: Some(workers_status(integration, &observed.workers)),
        scaling: scaling_status(&observed.scaling, before.scaling),
    }
}

/// After a restart the previous condition stays until the backlog of the Integration has been read.
fn set_scaling_active(list: &mut ConditionList, scaling: &ObservedScaling) {
    let before = conditions::find(&list.conditions, condition::SCALING_ACTIVE).cloned();
    let before = before.filter(|before| before.reason != reason::NOT_YET_TRIED);
    let unread =
        || ScalingCondition::new(UNKNOWN, reason::NOT_YET_TRIED, "the backlog has not been read yet");
    match (scaling.condition.clone(), before) {
        (None, Some(before)) => {
            list.set(condition::SCALING_ACTIVE, &before.status, &before.reason, &before.message);
        }
        (current, _) => {
            let current = current.or_else(|| scaling.expected.clone()).unwrap_or_else(unread);
            list.set(condition::SCALING_ACTIVE, current.status, current.reason, &current.message);
        }
    }
}

/// Present if a destination has a filter. Before the first poll the previous condition stays.
fn set_filters_healthy(
    list: &mut ConditionList,
    integration: &Integration,
    problems: Option<&[FilterProblem]>,
) {
    if integration.spec.destinations.iter().all(|destination| destination.filter.is_none()) {
        return conditions::clear(&mut list.conditions, condition::FILTERS_HEALTHY);
    }
    match problems.map(filter_problems::message) {
        Some(Some(message)) => list.set(condition::FILTERS_HEALTHY, FALSE, reason::FILTER_FAILED, &message),
        Some(None) => list.set(condition::FILTERS_HEALTHY, TRUE, reason::AS_DESIRED, ""),
        None => {}
    }
}

struct ConditionList {
    conditions: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl ConditionList {
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: self.generation,
            last_transition_time: Time(whole_seconds(self.now)),
        };
        conditions::set(&mut self.conditions, condition);
    }

    fn set_while(&mut self, type_: &str, holds: bool, reason: &str, message: &str) {
        if holds {
            self.set(type_, TRUE, reason, message);
        } else {
            conditions::clear(&mut self.conditions, type_);
        }
    }
}

fn step_condition(step: &StepStatus) -> (&'static str, &'static str, String) {
    match step {
        StepStatus::Done => (TRUE, reason::AS_DESIRED, String::new()),
        StepStatus::NotTried => {
            (UNKNOWN, reason::NOT_YET_TRIED, "an earlier step has not succeeded".to_owned())
        }
        StepStatus::Failed(problem) => (problem.status, problem.reason, problem.message.clone()),
    }
}

fn gone_message(destinations: &[String]) -> String {
    format!(
        "the receiver of {} answered 410 (Gone): deliveries to it are held until the spec changes",
        destinations.join(", ")
    )
}

fn workers_available(workers: &ObservedWorkers) -> (&'static str, &'static str, String) {
    match &workers.deployment {
        StepStatus::Done => {}
        other => return step_condition(other),
    }
    if workers.wanted == 0 {
        return (TRUE, reason::SCALED_TO_ZERO, "no worker is needed".to_owned());
    }
    if workers.ready >= workers.wanted {
        return (TRUE, reason::AS_DESIRED, String::new());
    }
    if let Some(failing) = &workers.failing {
        return (FALSE, reason::WORKERS_FAILING, failing.clone());
    }
    let message = format!("{} of {} workers are ready", workers.ready, workers.wanted);
    (FALSE, reason::WORKERS_STARTING, message)
}

/// The conditions Ready, Reconciling and Stalled.
struct ReadySummary {
    status: &'static str,
    reason: &'static str,
    message: String,
    reconciling: bool,
    stalled: bool,
}

fn summarize(integration: &Integration, observed: &Observation) -> ReadySummary {
    let summary = |status, reason, message: &str| ReadySummary {
        status,
        reason,
        message: message.to_owned(),
        reconciling: false,
        stalled: false,
    };
    match &observed.deletion {
        Some(DeletionPhase::Draining(message)) => {
            return ReadySummary { reconciling: true, ..summary(FALSE, reason::DRAINING, message) };
        }
        Some(DeletionPhase::Deleting(message)) => {
            return ReadySummary { reconciling: true, ..summary(FALSE, reason::DELETING, message) };
        }
        None => {}
    }
    let services = delivers_to_services(integration).then_some(&observed.services);
    let steps = [&observed.accepted, &observed.secrets, &observed.registered].into_iter();
    for step in steps.chain(services).chain([&observed.queues, &observed.workers.deployment]) {
        match step {
            StepStatus::Done => {}
            StepStatus::NotTried => {
                let message = "a change is being carried out";
                return ReadySummary { reconciling: true, ..summary(FALSE, reason::PROGRESSING, message) };
            }
            StepStatus::Failed(problem) => {
                // Pods become ready by themselves.
                let stalled = !problem.is_transient() && problem.reason != reason::NO_READY_ENDPOINTS;
                let failed = summary(FALSE, problem.reason, &problem.message);
                return ReadySummary { reconciling: !stalled, stalled, ..failed };
            }
        }
    }
    match integration.spec.state {
        IntegrationState::Active => {}
        IntegrationState::DeliveryPaused => {
            let message = "webhooks are accepted and stored; nothing is delivered";
            return summary(TRUE, reason::DELIVERY_PAUSED, message);
        }
        IntegrationState::Disabled => return summary(TRUE, reason::DISABLED, "webhooks are refused"),
    }
    let (available, why, message) = workers_available(&observed.workers);
    match why {
        _ if available == TRUE => summary(TRUE, reason::AS_DESIRED, "webhooks are accepted and delivered"),
        reason::WORKERS_FAILING => ReadySummary { stalled: true, ..summary(FALSE, why, &message) },
        // The first worker of an Integration that scales to zero, and every further one, start as part of normal
        // operation.
        _ if observed.workers.ready > 0 || scales_to_zero(integration) => {
            summary(TRUE, reason::AS_DESIRED, "webhooks are accepted and delivered")
        }
        _ => ReadySummary { reconciling: true, ..summary(FALSE, why, &message) },
    }
}

fn delivers_to_services(integration: &Integration) -> bool {
    integration.spec.destinations.iter().any(|destination| destination.service.is_some())
}

fn scales_to_zero(integration: &Integration) -> bool {
    let scaling = &integration.spec.workers.scaling;
    scaling.mode == ScalingMode::Auto && scaling.min_replicas == 0
}

fn route_status(integration: &Integration, public_url: Option<&Url>) -> RouteStatus {
    let path = names::webhook_path(integration.route());
    let url = public_url.map(|base| format!("{}{path}", base.as_str().trim_end_matches('/')));
    RouteStatus { path, url }
}

fn workers_status(integration: &Integration, workers: &ObservedWorkers) -> WorkersStatus {
    let id = integration_id(integration);
    WorkersStatus {
        deployment: (workers.deployment == StepStatus::Done).then(|| names::worker_deployment(id)),
        selector: Some(names::selector_string(&names::worker_selector(id))),
        replicas: workers.replicas,
        ready_replicas: workers.ready,
    }
}

/// After a restart the previous status stays until the scaler has decided.
fn scaling_status(scaling: &ObservedScaling, before: Option<ScalingStatus>) -> Option<ScalingStatus> {
    let Some(desired_replicas) = scaling.desired else { return before };
    let last_decision = scaling.last_decision.clone().or(before.and_then(|before| before.last_decision));
    Some(ScalingStatus {
        desired_replicas,
        last_scale_time: last_decision.as_ref().map(|decision| decision.time.clone()),
        limited_by: scaling.limited_by.clone(),
        last_decision,
    })
}

#[cfg(test)]
mod tests;
