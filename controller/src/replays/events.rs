//! Kubernetes Events about a Replay: one for each change of what it does.

use grapnel_crds::conditions::replay::{ACCEPTED, RUNNING};
use grapnel_crds::conditions::{self, TRUE};
use grapnel_crds::{ReplayPhase, ReplayStatus};
use kube::runtime::events::{Event, EventType};

use crate::report::events::event;

/// Returns the Event of the change from one status to another, if there is one.
pub(super) fn transition(before: Option<&ReplayStatus>, after: &ReplayStatus) -> Option<Event> {
    let reason_of = |status: &ReplayStatus| -> Option<(bool, String, String)> {
        let accepted = conditions::find(&status.conditions, ACCEPTED)?.status == TRUE;
        let does = conditions::find(&status.conditions, RUNNING)?;
        Some((accepted, does.reason.clone(), does.message.clone()))
    };
    let (is_accepted, reason, message) = reason_of(after)?;
    let was = before.and_then(|before| Some((before.phase, reason_of(before)?.1)));
    if was.is_some_and(|(phase, word)| phase == after.phase && word == reason) {
        return None;
    }
    let type_ = match after.phase? {
        // A job that has only been made says nothing yet.
        ReplayPhase::Pending if is_accepted => return None,
        ReplayPhase::Pending | ReplayPhase::Failed | ReplayPhase::Rejected => EventType::Warning,
        // It was not asked to.
        ReplayPhase::Paused if !message.is_empty() => EventType::Warning,
        ReplayPhase::Paused
        | ReplayPhase::Running
        | ReplayPhase::Cancelling
        | ReplayPhase::Cancelled
        | ReplayPhase::Completed => EventType::Normal,
    };
    let note = if message.is_empty() { counts(after) } else { message };
    Some(event(type_, "Replay", &reason, &note))
}

fn counts(status: &ReplayStatus) -> String {
    let skipped =
        status.skipped.as_ref().map_or(0, |skipped| skipped.succeeded + skipped.unfinished + skipped.gone);
    format!(
        "{} of the deliveries that match; {} succeeded, {} failed again, {skipped} skipped",
        status.progress.as_deref().unwrap_or("none"),
        status.succeeded.unwrap_or_default(),
        status.failed.unwrap_or_default()
    )
}
