//! Whether an Integration is ready, as pages show it: what its controller reported, and how old that is.

use jiff::{SignedDuration, Timestamp};

use super::show::{self, Badge};
use crate::management::model::{ConditionStatusView, ObjectStatusView, Rfc3339Millis};
use grapnel_crds::conditions::reason;

/// A controller confirms what it reported twice a minute. When it has not for so long, what is shown may be out of date.
const STALE_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// How long a change may take before somebody should look.
const CHANGE_MAY_TAKE: SignedDuration = SignedDuration::from_mins(1);

/// Reasons that pass by themselves.
const PASSING: [&str; 4] =
    [reason::PROGRESSING, reason::WORKERS_STARTING, reason::DRAINING, reason::DELETING];

/// The condition Ready in a line.
pub(super) struct Readiness {
    pub(super) badge: Badge,
    /// Empty where everything is as desired.
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since: Option<Rfc3339Millis>,
    /// Whether somebody should look.
    pub(super) needs_attention: bool,
}

impl Readiness {
    /// Returns `None` where nothing was reported.
    pub(super) fn of(status: &ObjectStatusView) -> Option<Self> {
        let ready = status.ready?;
        let reason = status.ready_reason.clone().unwrap_or_default();
        let is_passing = PASSING.contains(&reason.as_str());
        let lasts = status
            .ready_since
            .is_some_and(|since| Timestamp::now().duration_since(since.0) > CHANGE_MAY_TAKE);
        let badge = match ready {
            ConditionStatusView::True => Badge::new("ok", "ready"),
            ConditionStatusView::False if is_passing => Badge::new("wait", "not ready"),
            ConditionStatusView::False => Badge::new("bad", "not ready"),
            ConditionStatusView::Unknown => Badge::new("wait", "unknown"),
        };
        Some(Self {
            badge,
            reason: if reason == reason::AS_DESIRED { String::new() } else { show::text(&reason, 80) },
            message: show::text(status.ready_message.as_deref().unwrap_or_default(), 300),
            since: status.ready_since,
            needs_attention: ready != ConditionStatusView::True && (!is_passing || lasts),
        })
    }
}

/// Returns when something was reported last, if that is so long ago that it may be out of date.
pub(super) fn stale_since<'a>(all: impl Iterator<Item = &'a ObjectStatusView>) -> Option<Rfc3339Millis> {
    let newest = all.filter_map(|status| status.reported_at).map(|at| at.0).max()?;
    (Timestamp::now().duration_since(newest) > STALE_AFTER).then_some(Rfc3339Millis(newest))
}

/// Returns the workers in a few characters: how many are ready, and of how many.
pub(super) fn workers(status: &ObjectStatusView) -> String {
    let workers = status.workers.as_ref();
    ready_of(workers.and_then(|workers| workers.ready), workers.and_then(|workers| workers.desired))
}

fn ready_of(ready: Option<i32>, desired: Option<i32>) -> String {
    match (ready, desired) {
        (Some(ready), Some(desired)) if ready == desired => show::number(ready),
        (Some(ready), Some(desired)) => format!("{} of {}", show::number(ready), show::number(desired)),
        (Some(one), None) | (None, Some(one)) => show::number(one),
        (None, None) => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ready: ConditionStatusView, reason: &str, seconds_ago: i64) -> ObjectStatusView {
        let at = Rfc3339Millis(Timestamp::now() - SignedDuration::from_secs(seconds_ago));
        ObjectStatusView {
            ready: Some(ready),
            ready_reason: Some(reason.to_owned()),
            ready_since: Some(at),
            reported_at: Some(at),
            ..ObjectStatusView::default()
        }
    }

    #[test]
    fn what_passes_by_itself_is_given_a_minute() {
        use ConditionStatusView::{False, True, Unknown};
        let shown = |ready, reason, ago| {
            let shown = Readiness::of(&status(ready, reason, ago)).unwrap();
            (shown.badge.tone, shown.reason, shown.needs_attention)
        };
        assert_eq!(shown(True, "AsDesired", 0), ("ok", String::new(), false));
        assert_eq!(shown(True, "Disabled", 0), ("ok", "Disabled".to_owned(), false));
        assert_eq!(shown(False, "SecretNotFound", 0), ("bad", "SecretNotFound".to_owned(), true));
        assert_eq!(shown(False, "Progressing", 5), ("wait", "Progressing".to_owned(), false));
        assert_eq!(shown(False, "Progressing", 90), ("wait", "Progressing".to_owned(), true));
        assert_eq!(shown(Unknown, "x", 0).0, "wait");
        assert!(Readiness::of(&ObjectStatusView::default()).is_none());
    }

    #[test]
    fn a_report_of_any_integration_shows_that_the_controller_reports() {
        let (old, new) =
            (status(ConditionStatusView::True, "x", 300), status(ConditionStatusView::True, "x", 30));
        assert!(stale_since([&old].into_iter()).is_some());
        assert_eq!(stale_since([&old, &new, &ObjectStatusView::default()].into_iter()), None);
        assert_eq!(stale_since(std::iter::empty()), None);
    }

    #[test]
    fn workers_are_short() {
        assert_eq!(
            [ready_of(Some(2), Some(2)), ready_of(Some(1), Some(3)), ready_of(None, None)],
            ["2", "1 of 3", "–"]
        );
        assert_eq!(workers(&ObjectStatusView::default()), "–");
    }
}
