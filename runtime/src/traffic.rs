//! What this process has received and delivered, by the minute, for the statistics of integrations.
//!
//! Counting is an addition in memory: nobody who receives or delivers waits for the database. Every few seconds what was counted is added to the
//! table in one statement, once, whatever becomes of its answer. A killed process loses what it had not added, and of that only what is in no
//! row: the rest is corrected once the minute is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_store::Database;
use grapnel_store::traffic::{self as rows, TrafficCounts, TrafficRow};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) mod durations;

/// The time between two additions: what a killed process loses.
const PERIOD: Duration = Duration::from_secs(5);

/// The minutes and destinations that are counted while the database is away; what is beyond is not.
const MAX_COUNTED: usize = 20_000;

/// The time between two looks for minutes that are over.
const CLOSE_PERIOD: Duration = Duration::from_secs(10);

/// How long after its end a minute is corrected: by then everything that has an id of it is committed, or will not be.
const CLOSE_AFTER: SignedDuration = SignedDuration::from_secs(90);

/// The minutes that one look corrects: after a time without any process there are many.
const CLOSED_AT_ONCE: u32 = 240;

const MINUTE_MILLISECONDS: i64 = 60_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Counted {
    integration_id: IntegrationId,
    /// `None`: what concerns no destination.
    destination: Option<Arc<str>>,
    /// Since 1970.
    minute: i64,
}

/// The counts since the last addition. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic(Arc<Mutex<HashMap<Counted, TrafficCounts>>>);

/// The right to count, for as short a time as possible: others wait.
pub(crate) struct Counting<'a>(MutexGuard<'a, HashMap<Counted, TrafficCounts>>);

impl Traffic {
    /// Begins to count a batch.
    pub(crate) fn count(&self) -> Counting<'_> {
        // Nothing panics while this is held.
        Counting(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self) -> Vec<TrafficRow> {
        let counted = std::mem::take(&mut *self.count().0);
        let row = |(counted, counts): (Counted, TrafficCounts)| TrafficRow {
            integration_id: counted.integration_id,
            minute: Timestamp::from_millisecond(counted.minute * MINUTE_MILLISECONDS).unwrap_or_default(),
            destination: counted.destination.as_deref().unwrap_or_default().to_owned(),
            counts,
        };
        counted.into_iter().map(row).collect()
    }
}

impl Counting<'_> {
    /// An event that was stored. It counts in the minute of its id, as when the rows are counted.
    pub(crate) fn accepted(&mut self, integration_id: IntegrationId, event: EventId) {
        self.of(integration_id, None, minute_of(event)).accepted += 1;
    }

    /// An event that had been stored before.
    pub(crate) fn duplicate(&mut self, integration_id: IntegrationId, event: EventId) {
        self.of(integration_id, None, minute_of(event)).duplicate += 1;
    }

    /// A delivery that is left out.
    pub(crate) fn filtered(&mut self, integration_id: IntegrationId, destination: &Arc<str>, event: EventId) {
        self.of(integration_id, Some(Arc::clone(destination)), minute_of(event)).filtered += 1;
    }

    /// A request that was refused.
    pub(crate) fn refused(&mut self, integration_id: IntegrationId) {
        self.of(integration_id, None, this_minute()).refused += 1;
    }

    /// What became of a delivery. The duration is that of an attempt, in milliseconds; there is none when nothing was sent.
    pub(crate) fn ended(
        &mut self,
        integration_id: IntegrationId,
        destination: &str,
        state: AttemptEnd,
        duration_ms: Option<u32>,
    ) {
        let counts = self.of(integration_id, Some(destination.into()), this_minute());
        match state {
            AttemptEnd::Delivered => counts.delivered += 1,
            AttemptEnd::Failed => counts.failed += 1,
            AttemptEnd::Retrying => counts.retrying += 1,
        }
        if let Some(duration_ms) = duration_ms {
            let bucket = durations::bucket_of(duration_ms);
            if counts.durations.len() <= bucket {
                counts.durations.resize(bucket + 1, 0);
            }
            counts.durations[bucket] += 1;
        }
    }

    fn of(
        &mut self,
        integration_id: IntegrationId,
        destination: Option<Arc<str>>,
        minute: i64,
    ) -> &mut TrafficCounts {
        let mut key = Counted { integration_id, destination, minute };
        if self.0.len() >= MAX_COUNTED && !self.0.contains_key(&key) {
            // Counted nowhere that is written.
            key = Counted { integration_id: IntegrationId::new(Uuid::nil()), destination: None, minute: 0 };
        }
        self.0.entry(key).or_default()
    }
}

/// What became of a delivery by an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    Delivered,
    Failed,
    Retrying,
}

fn minute_of(event: EventId) -> i64 {
    let milliseconds = i64::try_from(event.uuid().as_u128() >> 80).unwrap_or_default();
    milliseconds / MINUTE_MILLISECONDS
}

fn this_minute() -> i64 {
    Timestamp::now().as_millisecond().div_euclid(MINUTE_MILLISECONDS)
}

/// Adds what was counted to the table until the token is cancelled, and once more at the end.
pub(crate) async fn run(db: Database, traffic: Traffic, stop: CancellationToken) {
    let mut writer = Writer { db, id: Uuid::now_v7(), sequence: 1, pending: Vec::new() };
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none();
        // What is pending is added first, and unchanged: it may have been added already.
        if writer.add().await {
            writer.pending = traffic.take();
            writer.pending.retain(|row| row.integration_id.uuid() != Uuid::nil());
            writer.add().await;
        }
        if stopped {
            return;
        }
    }
}

struct Writer {
    db: Database,
    id: Uuid,
    /// Of what is pending.
    sequence: i64,
    pending: Vec<TrafficRow>,
}

impl Writer {
    /// Returns whether nothing is pending any more.
    async fn add(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        if let Err(error) = rows::add(&self.db, self.id, self.sequence, &self.pending).await {
            tracing::warn!(error = %chain(&error), "traffic was not recorded");
            if !error.is_data_error() {
                return false;
            }
        }
        self.pending.clear();
        self.sequence += 1;
        true
    }
}

/// Corrects minutes that are over until the token is cancelled. Every api does so: the row that says how far they came lets one at a time.
pub(crate) async fn close_minutes(db: Database, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(CLOSE_PERIOD)).await.is_some() {
        let closed = rows::close_minutes(&db, Timestamp::now() - CLOSE_AFTER, CLOSED_AT_ONCE);
        let Some(closed) = stop.run_until_cancelled(closed).await else { return };
        if let Err(error) = closed {
            tracing::warn!(error = %chain(&error), "minutes of traffic were not corrected");
        }
    }
}
