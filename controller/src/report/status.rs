//! What an Integration reports: a function of what the steps came to and of what was reported before.
//!
//! What always holds: the same observation gives the same status, so a status is written only when something changed; a
//! time changes only with the thing that it dates; no message carries a secret. Ready means that webhooks are accepted
//! and delivered as the spec asks: an Integration that is paused, disabled or scaled to zero is ready.

use grapnel_crds::conditions::{self, FALSE, TRUE, UNKNOWN, condition, reason};
use grapnel_crds::{
    Integration, IntegrationState, IntegrationStatus, RouteStatus, ScalingDecision, ScalingMode,
    ScalingStatus, UnusedSecret, WorkersStatus, names,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use url::Url;

use crate::secrets::unused::secrets_status;

/// What one step of reconciling came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Step {
    /// An earlier step did not succeed.
    #[default]
    Untried,
    Done,
    Failed(Problem),
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// False when it is so, Unknown when it could not be found out.
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Problem {
    /// Something that stays so until someone acts.
    pub fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: FALSE, reason, message: message.into() }
    }

    /// Something that is tried again.
    pub fn passing(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: UNKNOWN, reason, message: message.into() }
    }
}

/// Everything that the status tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    pub accepted: Step,
    pub secrets: Step,
    pub registered: Step,
    pub queues: Step,
    pub workers: Workers,
    pub scaling: Scaling,
    pub captured: Captured,
    /// Absent before the first look at them.
    pub unused: Option<Vec<UnusedSecret>>,
    /// What is doubtful about the scheme, though it can be used.
    pub doubt: Option<&'static str>,
    pub deletion: Option<Deletion>,
}

/// A secret that the provider gave in a handshake.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Captured {
    /// What was told before stays.
    #[default]
    Unknown,
    /// None waits.
    Settled,
    /// One waits, and why.
    Waiting(Problem),
}

/// The worker Deployment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workers {
    pub deployment: Step,
    pub wanted: i32,
    pub replicas: i32,
    pub ready: i32,
    /// What Kubernetes says about workers that do not become ready.
    pub failing: Option<String>,
}

/// Status, reason and message of the condition ScalingActive.
pub type Active = (&'static str, &'static str, String);

/// What the scaler last came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scaling {
    /// Absent before the first tick, unless the spec alone decides.
    pub active: Option<Active>,
    /// What the first tick will come to, as far as can be said before.
    pub expected: Option<Active>,
    pub desired: Option<i32>,
    pub limited_by: Option<String>,
    pub last_decision: Option<ScalingDecision>,
}

/// How far the deletion of the object is.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// Deliveries are still going out.
    Draining(String),
    /// Things are being removed, or wait for a backend.
    Deleting(String),
}

/// The status to report now.
pub fn status(
    integration: &Integration,
    observed: &Observed,
    public_url: Option<&Url>,
    now: Timestamp,
) -> IntegrationStatus {
    let before = integration.status.clone().unwrap_or_default();
    let mut list =
        Conditions { conditions: before.conditions, generation: integration.metadata.generation, now };
    let steps = [
        (condition::ACCEPTED, &observed.accepted),
        (condition::SECRETS_RESOLVED, &observed.secrets),
        (condition::REGISTERED, &observed.registered),
        (condition::QUEUES_READY, &observed.queues),
    ];
    // What was true of the object before its deletion is left as it was told.
    let told = observed.deletion.is_none();
    for (type_, step) in steps.into_iter().filter(|_| told) {
        let (status, reason, message) = of_step(step);
        list.set(type_, status, reason, &message);
    }
    if let Some(doubt) = observed.doubt.filter(|_| told && observed.accepted == Step::Done) {
        list.set(condition::ACCEPTED, TRUE, reason::DOUBTFUL_SCHEME, doubt);
    }
    let (workers_status, workers_reason, workers_message) = workers_available(&observed.workers);
    list.set(condition::WORKERS_AVAILABLE, workers_status, workers_reason, &workers_message);
    if told {
        scaling_active(&mut list, &observed.scaling);
    }
    let summary = summarize(integration, observed);
    list.set(condition::READY, summary.status, summary.reason, &summary.message);
    list.set_while(condition::RECONCILING, summary.reconciling, summary.reason, &summary.message);
    list.set_while(condition::STALLED, summary.stalled, summary.reason, &summary.message);
    match &observed.captured {
        Captured::Unknown => {}
        Captured::Settled => list.set_while(condition::CAPTURE_WAITING, false, "", ""),
        Captured::Waiting(problem) => {
            list.set_while(condition::CAPTURE_WAITING, true, problem.reason, &problem.message);
        }
    }
    IntegrationStatus {
        observed_generation: integration.metadata.generation,
        conditions: list.conditions,
        integration_id: Some(integration.id().to_string()),
        route: if told {
            (observed.accepted == Step::Done).then(|| route_status(integration, public_url))
        } else {
            before.route
        },
        verification: secrets_status(integration, observed.unused.clone(), before.verification),
        workers: Some(workers_status_of(integration, &observed.workers)),
        scaling: scaling_status(&observed.scaling, before.scaling),
    }
}

/// A controller that has just started leaves what was told of an Integration until it has looked at its backlog.
fn scaling_active(list: &mut Conditions, scaling: &Scaling) {
    let told = conditions::find(&list.conditions, condition::SCALING_ACTIVE).cloned();
    match (scaling.active.clone(), told) {
        (Some((status, reason, message)), _) => {
            list.set(condition::SCALING_ACTIVE, status, reason, &message);
        }
        (None, Some(told)) if told.reason != reason::NOT_YET_TRIED => {
            list.set(condition::SCALING_ACTIVE, &told.status, &told.reason, &told.message);
        }
        (None, _) => {
            let unread = (UNKNOWN, reason::NOT_YET_TRIED, "the backlog has not been read yet".to_owned());
            let (status, reason, message) = scaling.expected.clone().unwrap_or(unread);
            list.set(condition::SCALING_ACTIVE, status, reason, &message);
        }
    }
}

struct Conditions {
    conditions: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
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

/// The API server keeps times to the second: what is compared with what it sends back must have no more.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn of_step(step: &Step) -> (&'static str, &'static str, String) {
    match step {
        Step::Done => (TRUE, reason::AS_DESIRED, String::new()),
        Step::Untried => (UNKNOWN, reason::NOT_YET_TRIED, "an earlier step has not succeeded".to_owned()),
        Step::Failed(problem) => (problem.status, problem.reason, problem.message.clone()),
    }
}

fn workers_available(workers: &Workers) -> (&'static str, &'static str, String) {
    match &workers.deployment {
        Step::Done => {}
        other => return of_step(other),
    }
    if workers.wanted == 0 {
        return (TRUE, reason::SCALED_TO_ZERO, "no worker is asked for".to_owned());
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

struct Summary {
    status: &'static str,
    reason: &'static str,
    message: String,
    reconciling: bool,
    stalled: bool,
}

fn summarize(integration: &Integration, observed: &Observed) -> Summary {
    let summary = |status, reason, message: &str| Summary {
        status,
        reason,
        message: message.to_owned(),
        reconciling: false,
        stalled: false,
    };
    match &observed.deletion {
        Some(Deletion::Draining(message)) => {
            return Summary { reconciling: true, ..summary(FALSE, reason::DRAINING, message) };
        }
        Some(Deletion::Deleting(message)) => {
            return Summary { reconciling: true, ..summary(FALSE, reason::DELETING, message) };
        }
        None => {}
    }
    let steps = [
        &observed.accepted,
        &observed.secrets,
        &observed.registered,
        &observed.queues,
        &observed.workers.deployment,
    ];
    for step in steps {
        match step {
            Step::Done => {}
            Step::Untried => {
                let message = "a change is being carried out";
                return Summary { reconciling: true, ..summary(FALSE, reason::PROGRESSING, message) };
            }
            Step::Failed(problem) => {
                let stalled = problem.status == FALSE;
                let failed = summary(FALSE, problem.reason, &problem.message);
                return Summary { reconciling: !stalled, stalled, ..failed };
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
    let (status, workers_reason, message) = workers_available(&observed.workers);
    match workers_reason {
        _ if status == TRUE => summary(TRUE, reason::AS_DESIRED, "webhooks are accepted and delivered"),
        reason::WORKERS_FAILING => Summary { stalled: true, ..summary(FALSE, workers_reason, &message) },
        // The first worker of an Integration that rests at zero, and every further one, start in the course of things.
        _ if observed.workers.ready > 0 || rests_at_zero(integration) => {
            summary(TRUE, reason::AS_DESIRED, "webhooks are accepted and delivered")
        }
        _ => Summary { reconciling: true, ..summary(FALSE, workers_reason, &message) },
    }
}

fn rests_at_zero(integration: &Integration) -> bool {
    let scaling = &integration.spec.workers.scaling;
    scaling.mode == ScalingMode::Auto && scaling.min_replicas == 0
}

fn route_status(integration: &Integration, public_url: Option<&Url>) -> RouteStatus {
    let path = names::webhook_path(integration.route());
    let url = public_url.map(|base| format!("{}{path}", base.as_str().trim_end_matches('/')));
    RouteStatus { path, url }
}

fn workers_status_of(integration: &Integration, workers: &Workers) -> WorkersStatus {
    let id = integration.id();
    WorkersStatus {
        deployment: (workers.deployment == Step::Done).then(|| names::worker_deployment(id)),
        selector: Some(names::selector_string(&names::worker_selector(id))),
        replicas: workers.replicas,
        ready_replicas: workers.ready,
    }
}

/// A controller that has just started knows nothing of the past; what was reported before stays until it does.
fn scaling_status(scaling: &Scaling, before: Option<ScalingStatus>) -> Option<ScalingStatus> {
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
