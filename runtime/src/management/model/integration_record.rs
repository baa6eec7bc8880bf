//! One Integration, with what the controller reported about its object.

use grapnel_store::views::IntegrationObject;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ConditionStatusView, IntegrationView, InvalidJson, Rfc3339Millis};

/// An Integration and the conditions of its object.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = IntegrationRecord)]
pub(crate) struct IntegrationRecordView {
    #[serde(flatten)]
    pub(crate) integration: IntegrationView,
    /// The generation of the spec that is in effect.
    pub(crate) generation: i64,
    /// The generation that the state is about; null where it was not reported. A higher one was not accepted, or is not in effect yet.
    #[schema(required)]
    pub(crate) observed_generation: Option<i64>,
    /// As in the status of the object; null where they were not reported.
    #[schema(required)]
    pub(crate) conditions: Option<Vec<ConditionView>>,
    /// The last change of the number of workers; null where there was none, or it was not reported.
    #[schema(required)]
    pub(crate) last_scaling: Option<ScalingChangeView>,
}

/// A condition of an object. Types and reasons are in the documentation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Condition)]
pub(crate) struct ConditionView {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: ConditionStatusView,
    pub(crate) reason: String,
    /// At most 1,024 characters.
    pub(crate) message: String,
    /// When the status last changed.
    pub(crate) last_transition_time: Rfc3339Millis,
}

/// A change of the number of workers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScalingChange)]
pub(crate) struct ScalingChangeView {
    pub(crate) time: Rfc3339Millis,
    pub(crate) from: i32,
    pub(crate) to: i32,
    /// One word.
    pub(crate) reason: String,
    /// With the numbers behind it.
    pub(crate) message: String,
}

/// A condition as it is stored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Timestamp,
}

#[derive(Deserialize)]
struct StoredChange {
    time: Timestamp,
    from: i32,
    to: i32,
    reason: String,
    message: String,
}

impl From<StoredCondition> for ConditionView {
    fn from(stored: StoredCondition) -> Self {
        Self {
            type_: stored.type_,
            status: ConditionStatusView::read(&stored.status),
            reason: stored.reason,
            message: stored.message,
            last_transition_time: stored.last_transition_time.into(),
        }
    }
}

impl From<StoredChange> for ScalingChangeView {
    fn from(stored: StoredChange) -> Self {
        let StoredChange { time, from, to, reason, message } = stored;
        Self { time: time.into(), from, to, reason, message }
    }
}

impl IntegrationRecordView {
    /// Renders a row and what was reported about its object.
    pub(in crate::management) fn from_object(object: IntegrationObject) -> Result<Self, InvalidJson> {
        let id = object.summary.id;
        let invalid = |column| {
            move |source| InvalidJson { table: "integration_statuses", column, id: id.uuid(), source }
        };
        let reported = object.conditions.as_ref();
        let conditions = reported
            .map(|reported| serde_json::from_str::<Vec<StoredCondition>>(&reported.conditions))
            .transpose()
            .map_err(invalid("conditions"))?;
        let last_scaling = reported
            .and_then(|reported| reported.last_scaling.as_deref())
            .map(serde_json::from_str::<StoredChange>)
            .transpose()
            .map_err(invalid("last_scaling"))?;
        Ok(Self {
            observed_generation: reported.and_then(|reported| reported.observed_generation),
            conditions: conditions.map(|all| all.into_iter().map(ConditionView::from).collect()),
            last_scaling: last_scaling.map(ScalingChangeView::from),
            generation: object.generation,
            integration: IntegrationView::from_summary(object.summary)?,
        })
    }
}
