//! The condition types of a Replay and the reasons they are reported with.
//!
//! All four types are present once the controller has seen the object. All but Accepted have the same reason: what the Replay does,
//! or why it does not.

/// The object is valid, its Integration exists, and its job was created.
pub const ACCEPTED: &str = "Accepted";
/// Deliveries are being made due, or are under way.
pub const RUNNING: &str = "Running";
/// Everything that matched was delivered, failed again, or was skipped.
pub const COMPLETE: &str = "Complete";
/// The Replay ended before it was complete, and nobody asked for that.
pub const FAILED: &str = "Failed";

/// The types, in the order in which they are reported.
pub const ALL: [&str; 4] = [ACCEPTED, RUNNING, COMPLETE, FAILED];

/// The reasons, with the status of the condition Accepted. Without a job all four conditions have the reason of Accepted.
pub mod reason {
    /// True: it is a dry run, which has counted what matches; the message says how many. All four conditions have this reason.
    pub const DRY_RUN: &str = "DryRun";
    /// True: the job exists under the id in status.replayId. Only Accepted has this reason.
    pub const JOB_CREATED: &str = "JobCreated";

    /// Unknown: PostgreSQL did not respond. The Replay waits for it.
    pub const DATABASE_UNAVAILABLE: &str = "DatabaseUnavailable";
    /// False: the namespace has no registered Integration of that name. The Replay waits for it.
    pub const INTEGRATION_NOT_FOUND: &str = "IntegrationNotFound";
    /// False: the Integration is Disabled. The Replay waits until it is not.
    pub const INTEGRATION_DISABLED: &str = "IntegrationDisabled";
    /// False: the Integration has no destination of a name in the spec. The Replay waits for it.
    pub const DESTINATION_NOT_FOUND: &str = "DestinationNotFound";
    /// False: the platform has as many unfinished replays as it allows. The Replay waits until one has ended.
    pub const TOO_MANY_REPLAYS: &str = "TooManyReplays";

    /// False: the spec breaks a rule that the API server does not check; the message names the field.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// False: a Replay with the same name, spec and runId ran before in this namespace; the message names its job.
    pub const ALREADY_RAN: &str = "AlreadyRan";
    /// False, or True with Failed: more than maxDeliveries deliveries match.
    pub const LIMIT_REACHED: &str = "LimitReached";

    /// False: other than spec.expectedCount deliveries match; the message says how many.
    pub const UNEXPECTED_COUNT: &str = "UnexpectedCount";

    /// True: the job has not begun.
    pub const PENDING: &str = "Pending";
    /// True, with Running.
    pub const RUNNING: &str = "Running";
    /// True: state is Paused, or it was paused through the API.
    pub const PAUSED: &str = "Paused";
    /// True: the Replay paused itself, because over half of its last attempts failed.
    pub const TOO_MANY_FAILURES: &str = "TooManyFailures";
    /// True, with Running: it was cancelled, and what it has made due is still being delivered.
    pub const CANCELLING: &str = "Cancelling";
    /// True: it was cancelled.
    pub const CANCELLED: &str = "Cancelled";
    /// True, with Complete.
    pub const COMPLETED: &str = "Completed";
    /// True, with Failed: the message says why.
    pub const FAILED: &str = "Failed";
    /// True, with Failed: the record of the job is no longer kept, so how it ended is not known.
    pub const RECORD_EXPIRED: &str = "RecordExpired";
}
