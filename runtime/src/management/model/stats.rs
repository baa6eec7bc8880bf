//! The statistics of an integration.

use grapnel_store::views::{DestinationStats, TrafficStats};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Rfc3339Millis;
use crate::traffic::durations::percentile;

/// The traffic of an integration in a window, and what waits now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = IntegrationStats)]
pub(crate) struct IntegrationStatsView {
    /// The beginning of the window, a whole minute.
    pub(crate) from: Rfc3339Millis,
    /// Events that were stored.
    #[schema(minimum = 0)]
    pub(crate) accepted: i64,
    /// Events that had been stored before.
    #[schema(minimum = 0)]
    pub(crate) duplicate: i64,
    /// Requests that were refused.
    #[schema(minimum = 0)]
    pub(crate) refused: i64,
    #[serde(flatten)]
    pub(crate) delivery: DeliveryStatsView,
    /// By name: those with traffic in the window, and those with unfinished deliveries.
    pub(crate) destinations: Vec<DestinationStatsView>,
}

/// The statistics of a destination.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DestinationStats)]
pub(crate) struct DestinationStatsView {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) delivery: DeliveryStatsView,
}

/// Deliveries: what became of them in the window, and those that are unfinished now.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeliveryStats)]
pub(crate) struct DeliveryStatsView {
    /// Deliveries that succeeded.
    #[schema(minimum = 0)]
    pub(crate) delivered: i64,
    /// Deliveries that were given up after their last attempt.
    #[schema(minimum = 0)]
    pub(crate) failed: i64,
    /// Attempts that failed and after which there is another.
    #[schema(minimum = 0)]
    pub(crate) retrying: i64,
    /// Deliveries that filters left out.
    #[schema(minimum = 0)]
    pub(crate) filtered: i64,
    pub(crate) attempt_duration: DurationsView,
    /// Unfinished deliveries now, of each destination at most 100,000.
    #[schema(minimum = 0)]
    pub(crate) backlog: i64,
    /// When the oldest event with an unfinished delivery was received.
    #[schema(required)]
    pub(crate) oldest_waiting: Option<Rfc3339Millis>,
}

/// Durations of attempts in milliseconds, right to 10 %. Null without attempts.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AttemptDurations)]
pub(crate) struct DurationsView {
    #[schema(required)]
    pub(crate) p50_ms: Option<f64>,
    #[schema(required)]
    pub(crate) p95_ms: Option<f64>,
    #[schema(required)]
    pub(crate) p99_ms: Option<f64>,
}

impl IntegrationStatsView {
    /// Renders the statistics since the beginning of a minute.
    pub(in crate::management) fn new(from: Timestamp, stats: TrafficStats) -> Self {
        let mut sum = DestinationStats::default();
        for destination in stats.destinations.values() {
            sum.delivered += destination.delivered;
            sum.failed += destination.failed;
            sum.retrying += destination.retrying;
            sum.filtered += destination.filtered;
            sum.backlog += destination.backlog;
            let oldest = [sum.oldest_waiting, destination.oldest_waiting];
            sum.oldest_waiting = oldest.into_iter().flatten().min();
            if sum.durations.len() < destination.durations.len() {
                sum.durations.resize(destination.durations.len(), 0);
            }
            for (bucket, attempts) in sum.durations.iter_mut().zip(&destination.durations) {
                *bucket += attempts;
            }
        }
        let destination = |(name, stats): (String, DestinationStats)| DestinationStatsView {
            name,
            delivery: DeliveryStatsView::from(&stats),
        };
        Self {
            from: from.into(),
            accepted: stats.accepted,
            duplicate: stats.duplicate,
            refused: stats.refused,
            delivery: DeliveryStatsView::from(&sum),
            destinations: stats.destinations.into_iter().map(destination).collect(),
        }
    }
}

impl From<&DestinationStats> for DeliveryStatsView {
    fn from(stats: &DestinationStats) -> Self {
        // A tenth of a millisecond is more than they say.
        let shown =
            |part| percentile(&stats.durations, part).map(|duration| (duration * 10.0).round() / 10.0);
        Self {
            delivered: stats.delivered,
            failed: stats.failed,
            retrying: stats.retrying,
            filtered: stats.filtered,
            attempt_duration: DurationsView { p50_ms: shown(0.5), p95_ms: shown(0.95), p99_ms: shown(0.99) },
            backlog: stats.backlog,
            oldest_waiting: stats.oldest_waiting.map(Rfc3339Millis),
        }
    }
}
