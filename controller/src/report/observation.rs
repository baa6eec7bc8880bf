//! What a pass has observed of an Integration, from which its status follows.

use grapnel_crds::conditions::{FALSE, UNKNOWN};
use grapnel_crds::{ScalingDecision, UnusedSecret};

use crate::filter_problems::FilterProblem;
use crate::replicas::ScalingCondition;

/// The outcome of one step of a pass, as its condition reports it.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum StepStatus {
    /// An earlier step did not succeed.
    #[default]
    NotTried,
    Done,
    Failed(StepProblem),
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct StepProblem {
    /// False if the step failed, Unknown if its outcome could not be determined.
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl StepProblem {
    /// A problem that lasts until someone acts.
    pub fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: FALSE, reason, message: message.into() }
    }

    /// A problem that is retried.
    pub fn transient(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: UNKNOWN, reason, message: message.into() }
    }

    pub fn is_transient(&self) -> bool {
        self.status == UNKNOWN
    }
}

/// The observations of a pass, from which the status follows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    pub accepted: StepStatus,
    pub secrets: StepStatus,
    pub registered: StepStatus,
    /// Of the Services that it delivers to.
    pub services: StepStatus,
    pub queues: StepStatus,
    pub workers: ObservedWorkers,
    pub scaling: ObservedScaling,
    pub capture: CaptureStatus,
    /// Absent before the first poll.
    pub unused_secrets: Option<Vec<UnusedSecret>>,
    /// The destinations that answered 410 to this generation. Absent before the first poll.
    pub gone: Option<Vec<String>>,
    /// Absent before the first poll.
    pub filter_problems: Option<Vec<FilterProblem>>,
    /// A warning about a scheme that can be used but is weak.
    pub warning: Option<&'static str>,
    /// A warning about a secret that can be used but is probably not what was meant.
    pub secret_warning: Option<String>,
    /// What the platform leaves out of `spec.workers`.
    pub restricted: Option<String>,
    pub deletion: Option<DeletionPhase>,
}

/// A secret that the provider sent in a handshake.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum CaptureStatus {
    /// Not polled yet; the previous condition stays.
    #[default]
    Unknown,
    NonePending,
    /// One is not in its Secret yet, and why.
    Pending(StepProblem),
}

/// The worker Deployment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObservedWorkers {
    pub deployment: StepStatus,
    pub wanted: i32,
    pub replicas: i32,
    pub ready: i32,
    /// The message of Kubernetes about workers that do not become ready.
    pub failing: Option<String>,
}

/// The last decision of the scaler.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObservedScaling {
    /// Absent before the first tick, unless the spec alone decides.
    pub condition: Option<ScalingCondition>,
    /// The condition that the first tick is expected to report.
    pub expected: Option<ScalingCondition>,
    pub desired: Option<i32>,
    pub limited_by: Option<String>,
    pub last_decision: Option<ScalingDecision>,
}

/// The phase of the object's deletion.
#[derive(Debug, Clone, PartialEq)]
pub enum DeletionPhase {
    /// Deliveries are still going out.
    Draining(String),
    /// Things are being removed, or a backend is awaited.
    Deleting(String),
}
