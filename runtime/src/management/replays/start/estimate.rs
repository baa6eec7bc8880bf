//! What a dry run answers.

use grapnel_core::ids::EventId;
use grapnel_store::replay_jobs::{PlannedDestination, ReplayPlan};
use grapnel_store::views::time_of_id;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::management::model::Rfc3339Millis;

/// What a replay would deliver.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReplayEstimate)]
pub(crate) struct EstimateView {
    /// Deliveries. Exact up to 100,000; else there are at least so many.
    pub(crate) matched: u64,
    pub(crate) is_exact: bool,
    pub(crate) destinations: Vec<EstimatedDestinationView>,
    /// When the oldest event was received; null when there is none, or it is not known.
    #[schema(required)]
    pub(crate) oldest: Option<Rfc3339Millis>,
    #[schema(required)]
    pub(crate) newest: Option<Rfc3339Millis>,
    /// How long it takes at this rate, at least.
    pub(crate) duration_seconds: u64,
    /// The first ten, in the order of the replay. Null without the right to see payloads.
    #[schema(required)]
    pub(crate) samples: Option<Vec<SampleView>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EstimatedReplayDestination)]
pub(crate) struct EstimatedDestinationView {
    pub(crate) integration_id: Uuid,
    pub(crate) name: String,
    pub(crate) matched: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReplaySample)]
pub(crate) struct SampleView {
    pub(crate) event_id: Uuid,
    pub(crate) integration_id: Uuid,
    pub(crate) destination: String,
    pub(crate) received_at: Rfc3339Millis,
}

impl EstimateView {
    pub(super) fn new(plan: &ReplayPlan, shows_samples: bool) -> Self {
        let time = |id: EventId| time_of_id(id.uuid()).map(Rfc3339Millis);
        let known = |pick: fn(&PlannedDestination) -> Option<EventId>| {
            let matching = || plan.destinations.iter().filter(|one| one.matched > 0);
            matching().map(pick).collect::<Option<Vec<_>>>()
        };
        let destination = |one: &PlannedDestination| EstimatedDestinationView {
            integration_id: one.integration_id.uuid(),
            name: one.name.clone(),
            matched: one.matched,
        };
        let samples = plan.samples.iter().filter_map(|sample| {
            Some(SampleView {
                event_id: sample.event_id.uuid(),
                integration_id: sample.integration_id.uuid(),
                destination: sample.destination.clone(),
                received_at: time(sample.event_id)?,
            })
        });
        Self {
            matched: plan.matched(),
            is_exact: plan.is_exact,
            destinations: plan.destinations.iter().map(destination).collect(),
            oldest: known(|one| one.oldest).and_then(|ids| ids.into_iter().min()).and_then(time),
            newest: known(|one| one.newest).and_then(|ids| ids.into_iter().max()).and_then(time),
            duration_seconds: plan.matched().div_ceil(plan.spec.rate_per_second.max(1).into()),
            samples: shows_samples.then(|| samples.collect()),
        }
    }
}
