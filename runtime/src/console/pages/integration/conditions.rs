//! The conditions of an Integration's object, as its controller reported them, each with what the documentation says about it.

use grapnel_crds::conditions::{condition, reason};

use crate::console::condition_docs::{Explanation, explain};
use crate::console::show::Badge;
use crate::management::model::{ConditionStatusView, ConditionView};

/// A condition, with what the documentation says about it.
pub(super) struct ShownCondition {
    pub(super) badge: Badge,
    pub(super) condition: ConditionView,
    /// Of one that is not as desired.
    pub(super) explanation: Option<&'static Explanation>,
}

/// Returns the conditions, the summary first.
pub(super) fn shown_conditions(mut conditions: Vec<ConditionView>) -> Vec<ShownCondition> {
    conditions.sort_by_key(|one| one.type_ != condition::READY);
    conditions.into_iter().map(ShownCondition::new).collect()
}

impl ShownCondition {
    fn new(condition: ConditionView) -> Self {
        let is_desired = condition.reason == reason::AS_DESIRED;
        let explanation = if is_desired { None } else { explain(&condition.type_, &condition.reason) };
        Self { badge: badge_of(&condition), explanation, condition }
    }
}

/// Some conditions are there only while something is wrong.
fn badge_of(condition: &ConditionView) -> Badge {
    let reports_trouble =
        [condition::STALLED, condition::RESTRICTED, condition::DESTINATION_GONE, condition::CAPTURE_WAITING];
    match condition.status {
        ConditionStatusView::Unknown => Badge::new("wait", "Unknown"),
        ConditionStatusView::True if reports_trouble.contains(&condition.type_.as_str()) => {
            Badge::new("bad", "True")
        }
        ConditionStatusView::True if condition.type_ == condition::RECONCILING => Badge::new("wait", "True"),
        ConditionStatusView::True => Badge::new("ok", "True"),
        // The number of workers does not follow the backlog, as the spec may ask.
        ConditionStatusView::False
            if condition.reason == reason::NOT_AUTOMATIC || condition.reason == reason::DELIVERY_STOPPED =>
        {
            Badge::new("off", "False")
        }
        ConditionStatusView::False => Badge::new("bad", "False"),
    }
}
