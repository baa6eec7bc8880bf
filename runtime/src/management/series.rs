//! The traffic and the workers of one Integration over time, for the charts of the console.

use std::time::Duration;

use grapnel_core::ids::IntegrationId;
use grapnel_store::Database;
use grapnel_store::views::{load_series, load_worker_series};
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

use super::model::Rfc3339Millis;
use crate::http::envelope::ApiError;
use crate::traffic::durations::percentile;

/// How far a chart goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeriesWindow {
    Hour,
    Day,
    Week,
}

impl SeriesWindow {
    pub(crate) const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// Returns the value of `window`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// Reads a value of `window`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.name() == text)
    }

    /// The length of a part in minutes, and how many there are.
    fn parts(self) -> (i64, usize) {
        match self {
            Self::Hour => (1, 60),
            Self::Day => (15, 96),
            Self::Week => (120, 84),
        }
    }
}

/// What happened in a window, in equal parts, the oldest first.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) from: Rfc3339Millis,
    pub(crate) part: SignedDuration,
    pub(crate) accepted: Vec<i64>,
    pub(crate) refused: Vec<i64>,
    pub(crate) delivered: Vec<i64>,
    pub(crate) failed: Vec<i64>,
    /// Durations of attempts in milliseconds; none without attempts.
    pub(crate) p50: Vec<Option<f64>>,
    pub(crate) p95: Vec<Option<f64>>,
    pub(crate) p99: Vec<Option<f64>>,
    /// The most of each part, as the controller reported it; none where it did not.
    pub(crate) queued: Vec<Option<i64>>,
    pub(crate) workers_desired: Vec<Option<i64>>,
    pub(crate) workers_ready: Vec<Option<i64>>,
}

/// Reads the traffic and the workers of an Integration.
pub(super) async fn read(db: &Database, id: IntegrationId, window: SeriesWindow) -> Result<Series, ApiError> {
    let (minutes, count) = window.parts();
    let floor = TimestampRound::new().smallest(Unit::Minute).mode(RoundMode::Floor);
    let now = Timestamp::now();
    let last = now.round(floor).unwrap_or(now);
    let part = SignedDuration::from_mins(minutes);
    let from = last - part * (i32::try_from(count).unwrap_or(i32::MAX) - 1);
    let length = Duration::from_secs(minutes.unsigned_abs() * 60);
    let mut series = Series {
        from: from.into(),
        part,
        accepted: vec![0; count],
        refused: vec![0; count],
        delivered: vec![0; count],
        failed: vec![0; count],
        p50: vec![None; count],
        p95: vec![None; count],
        p99: vec![None; count],
        queued: vec![None; count],
        workers_desired: vec![None; count],
        workers_ready: vec![None; count],
    };
    for part in load_series(db, id, from, length).await? {
        let at = part.number.min(count - 1);
        series.accepted[at] += part.accepted;
        series.refused[at] += part.refused;
        series.delivered[at] += part.delivered;
        series.failed[at] += part.failed;
        series.p50[at] = percentile(&part.durations, 0.5);
        series.p95[at] = percentile(&part.durations, 0.95);
        series.p99[at] = percentile(&part.durations, 0.99);
    }
    for part in load_worker_series(db, id, from, length, count).await? {
        let at = part.number.min(count - 1);
        series.queued[at] = part.backlog;
        series.workers_desired[at] = part.desired.map(i64::from);
        series.workers_ready[at] = part.ready.map(i64::from);
    }
    Ok(series)
}
