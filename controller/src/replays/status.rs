//! The status of a Replay, from how it stands: a function of values.

use grapnel_core::replay::{ReplayState, at_least};
use grapnel_crds::conditions::replay::{ACCEPTED, ALL, COMPLETE, FAILED, RUNNING, reason};
use grapnel_crds::conditions::{self, FALSE, TRUE, UNKNOWN};
use grapnel_crds::{Replay, ReplayPhase, ReplayStatus, SkippedDeliveries};
use grapnel_store::replay_jobs::{ReplayCounters, ReplayJob};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::object::whole_seconds;

#[cfg(test)]
mod tests;

/// How an object stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Standing {
    /// It has its job.
    Job(Box<ReplayJob>),
    /// It had its job, whose record is no longer kept. How it ended is not known.
    Lost,
    /// It is a dry run: so many deliveries match, or at least so many.
    Counted { matched: u64, is_exact: bool },
    /// It has no job yet, and gets one when what it lacks is there.
    Waiting { status: &'static str, reason: &'static str, message: String },
    /// It gets none.
    Rejected { reason: &'static str, message: String },
}

impl Standing {
    pub(super) fn waiting(reason: &'static str, message: String) -> Self {
        Self::Waiting { status: FALSE, reason, message }
    }

    /// Whether it can be accepted is not known: PostgreSQL did not answer.
    pub(super) fn unknown() -> Self {
        let message = "PostgreSQL is not available".to_owned();
        Self::Waiting { status: UNKNOWN, reason: reason::DATABASE_UNAVAILABLE, message }
    }
}

/// Returns the status to report.
pub(super) fn status(replay: &Replay, standing: &Standing, now: Timestamp) -> ReplayStatus {
    let before = replay.status.clone().unwrap_or_default();
    let generation = replay.metadata.generation;
    let report = |phase, accepted: (&str, &str, &str), others: (&str, &str), next| ReplayStatus {
        observed_generation: generation,
        phase: Some(phase),
        conditions: all_conditions(&before.conditions, phase, accepted, others, generation, now),
        ..next
    };
    match standing {
        Standing::Job(job) => {
            let phase = phase_of(job.state);
            let word = job.state_reason.as_deref().unwrap_or(job.state.as_str());
            let message = job.state_message.as_deref().unwrap_or_default();
            report(phase, (TRUE, reason::JOB_CREATED, ""), (word, message), of_job(job))
        }
        Standing::Lost => {
            let message = "the record of the job is no longer kept, so how it ended is not known";
            let others = (reason::RECORD_EXPIRED, message);
            report(ReplayPhase::Failed, (TRUE, reason::JOB_CREATED, ""), others, before.clone())
        }
        Standing::Counted { matched, is_exact } => {
            let message = counted(replay, *matched, *is_exact);
            let counters = ReplayCounters {
                matched: *matched,
                matched_is_exact: *is_exact,
                ..ReplayCounters::default()
            };
            let status = ReplayStatus {
                progress: Some(progress(counters)),
                matched: Some(count(*matched)),
                ..ReplayStatus::default()
            };
            report(
                ReplayPhase::Pending,
                (TRUE, reason::DRY_RUN, &message),
                (reason::DRY_RUN, &message),
                status,
            )
        }
        Standing::Waiting { status, reason, message } => report(
            ReplayPhase::Pending,
            (*status, *reason, message.as_str()),
            (*reason, message.as_str()),
            ReplayStatus::default(),
        ),
        Standing::Rejected { reason, message } => report(
            ReplayPhase::Rejected,
            (FALSE, *reason, message.as_str()),
            (*reason, message.as_str()),
            ReplayStatus::default(),
        ),
    }
}

/// Returns whether a dry run has counted, for this generation of its spec. It does so once.
pub(super) fn has_counted(replay: &Replay) -> bool {
    let Some(status) = &replay.status else { return false };
    let accepted = conditions::find(&status.conditions, ACCEPTED);
    replay.spec.dry_run
        && status.observed_generation == replay.metadata.generation
        && accepted.is_some_and(|accepted| accepted.reason == reason::DRY_RUN)
}

fn counted(replay: &Replay, matched: u64, is_exact: bool) -> String {
    let (at_least, most) = (at_least(is_exact), replay.spec.max_deliveries);
    let refused = if count(matched) > i64::from(most) {
        format!(", more than spec.maxDeliveries ({most})")
    } else {
        String::new()
    };
    format!("{at_least}{matched} deliveries match{refused}; set spec.dryRun to false to deliver them")
}

/// Returns the status of an object that has ended, for a later generation: nothing else of it changes.
pub(super) fn at_generation(status: &ReplayStatus, generation: Option<i64>) -> ReplayStatus {
    let mut status = status.clone();
    status.observed_generation = generation;
    for condition in &mut status.conditions {
        condition.observed_generation = generation;
    }
    status
}

/// Returns the status with the counts of another one.
pub(super) fn with_counts_of(status: &ReplayStatus, other: &ReplayStatus) -> ReplayStatus {
    ReplayStatus {
        progress: other.progress.clone(),
        matched: other.matched,
        fed: other.fed,
        skipped: other.skipped.clone(),
        succeeded: other.succeeded,
        failed: other.failed,
        remaining: other.remaining,
        ..status.clone()
    }
}

fn phase_of(state: ReplayState) -> ReplayPhase {
    match state {
        ReplayState::Pending => ReplayPhase::Pending,
        ReplayState::Running => ReplayPhase::Running,
        ReplayState::Paused => ReplayPhase::Paused,
        ReplayState::Cancelling => ReplayPhase::Cancelling,
        ReplayState::Cancelled => ReplayPhase::Cancelled,
        ReplayState::Completed => ReplayPhase::Completed,
        ReplayState::Failed => ReplayPhase::Failed,
    }
}

/// Returns what is reported of a job beside its conditions.
fn of_job(job: &ReplayJob) -> ReplayStatus {
    let counters = job.counters;
    let time = |time: Option<Timestamp>| time.map(|time| Time(whole_seconds(time)));
    ReplayStatus {
        replay_id: Some(job.id.to_string()),
        rate_per_second: Some(job.rate_per_second.cast_signed()),
        progress: Some(progress(counters)),
        matched: Some(count(counters.matched)),
        fed: Some(count(counters.fed)),
        skipped: Some(SkippedDeliveries {
            succeeded: count(counters.skipped.succeeded),
            unfinished: count(counters.skipped.unfinished),
            gone: count(counters.skipped.gone),
        }),
        succeeded: Some(count(counters.succeeded)),
        failed: Some(count(counters.failed)),
        remaining: Some(count(counters.remaining())),
        start_time: time(job.started_at),
        completion_time: time(job.finished_at),
        ..ReplayStatus::default()
    }
}

fn progress(counters: ReplayCounters) -> String {
    let done = counters.skipped.sum() + counters.succeeded + counters.failed;
    let at_least = if counters.matched_is_exact { "" } else { "+" };
    format!("{done}/{}{at_least}", counters.matched)
}

fn count(deliveries: u64) -> i64 {
    i64::try_from(deliveries).unwrap_or(i64::MAX)
}

/// Returns the conditions. All but Accepted have one reason and one message: what the Replay does, or why it does not.
fn all_conditions(
    before: &[Condition],
    phase: ReplayPhase,
    accepted: (&str, &str, &str),
    (reason, message): (&str, &str),
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let holds = |type_: &str| match type_ {
        RUNNING => matches!(phase, ReplayPhase::Running | ReplayPhase::Cancelling),
        COMPLETE => phase == ReplayPhase::Completed,
        FAILED => phase == ReplayPhase::Failed,
        _ => false,
    };
    let mut list = before.to_vec();
    for type_ in ALL {
        let (status, reason, message) = match type_ {
            ACCEPTED => accepted,
            _ => (if holds(type_) { TRUE } else { FALSE }, reason, message),
        };
        conditions::set(
            &mut list,
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                observed_generation: generation,
                last_transition_time: Time(whole_seconds(now)),
            },
        );
    }
    list
}
