//! The state of an Integration's object, as the controller reported it.

use grapnel_crds::conditions::{FALSE, TRUE};
use grapnel_store::views::StatusSummary;
use serde::Serialize;
use utoipa::ToSchema;

use super::Rfc3339Millis;

/// The state of the object, as the controller reported it last. All of it is null where no controller has: with `grapnel dev` and `grapnel apply`, and
/// before the first report.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ObjectStatus)]
pub(crate) struct ObjectStatusView {
    /// The condition `Ready`: whether webhooks are accepted and delivered as the spec asks.
    #[schema(required)]
    pub(crate) ready: Option<ConditionStatusView>,
    /// One word, from the list of reasons in the documentation.
    #[schema(required)]
    pub(crate) ready_reason: Option<String>,
    #[schema(required)]
    pub(crate) ready_message: Option<String>,
    /// Since when `ready` is what it is.
    #[schema(required)]
    pub(crate) ready_since: Option<Rfc3339Millis>,
    #[schema(required)]
    pub(crate) workers: Option<WorkersView>,
    /// Deliveries in the queues, as the controller read them last; null also while it cannot read them.
    #[schema(required, minimum = 0)]
    pub(crate) queue_backlog: Option<i64>,
    /// When the controller reported this, or last found that nothing had changed. It is more than a minute old only if no controller reports.
    #[schema(required)]
    pub(crate) reported_at: Option<Rfc3339Millis>,
}

impl ObjectStatusView {
    pub(super) fn new(status: Option<StatusSummary>) -> Self {
        let Some(status) = status else { return Self::default() };
        let workers = status.workers;
        let mut view = Self {
            workers: Some(WorkersView {
                desired: workers.desired,
                existing: workers.existing,
                ready: workers.ready,
                limited_by: status.limited_by,
            }),
            queue_backlog: status.backlog,
            reported_at: Some(status.as_of.into()),
            ..Self::default()
        };
        if let Some(ready) = status.ready {
            view.ready = Some(ConditionStatusView::read(&ready.status));
            view.ready_reason = Some(ready.reason);
            view.ready_message = Some(ready.message);
            view.ready_since = Some(ready.since.into());
        }
        view
    }
}

/// The workers of an Integration. What was not observed is null.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Workers)]
pub(crate) struct WorkersView {
    /// How many were asked for last.
    #[schema(required, minimum = 0)]
    pub(crate) desired: Option<i32>,
    /// Pods that exist.
    #[schema(required, minimum = 0)]
    pub(crate) existing: Option<i32>,
    /// Pods that are ready.
    #[schema(required, minimum = 0)]
    pub(crate) ready: Option<i32>,
    /// What keeps the number from following the backlog alone, such as `MaxReplicas`; null if nothing does.
    #[schema(required)]
    pub(crate) limited_by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ConditionStatus)]
pub(crate) enum ConditionStatusView {
    True,
    False,
    Unknown,
}

impl ConditionStatusView {
    pub(super) fn read(status: &str) -> Self {
        match status {
            TRUE => Self::True,
            FALSE => Self::False,
            _ => Self::Unknown,
        }
    }
}
