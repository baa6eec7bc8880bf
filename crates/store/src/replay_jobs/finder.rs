//! Finds what a feeder is to feed next, ahead of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::replay::ReplaySpec;
use grapnel_crds::Destination;
use uuid::Uuid;

use super::sift::{self, Sieve};
use super::walk::{Met, Walk};
use crate::database::Database;
use crate::error::{Error, Result};

/// The rows of a slice. Few are read at first: the first deliveries need not wait for the others.
const FIRST_ROWS: i64 = 500;
const MOST_ROWS: i64 = 5_000;
const FEWEST_ROWS: i64 = 50;

/// Events that are tested by expressions are read, so fewer at a time.
const MOST_TESTED_ROWS: i64 = 500;

const SLICE_TIME: Duration = Duration::from_millis(1_500);

/// How long one call looks for something, if there is nothing in what it reads.
const PATIENCE: Duration = Duration::from_millis(300);

/// What was found of one destination of a job, from a position on.
#[derive(Debug)]
pub struct Finder {
    sieve: Option<Sieve>,
    /// Where the job is when all before `found` is fed.
    cursor: Option<Uuid>,
    found: VecDeque<Met>,
    /// What was read, as far as `found` goes.
    through: Option<Uuid>,
    is_complete: bool,
    rows: i64,
}

/// A part of what was found, to be fed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDeliveries {
    pub cursor: Option<Uuid>,
    pub next_cursor: Option<Uuid>,
    /// Whether there are no more behind it.
    pub is_last: bool,
    pub events: Vec<EventId>,
    pub unfinished: u64,
}

impl Finder {
    /// Begins at a position. `destination` is as it is configured now.
    pub fn new(spec: &ReplaySpec, destination: Option<&Destination>, cursor: Option<Uuid>) -> Self {
        Self {
            sieve: Sieve::new(spec, destination),
            cursor,
            found: VecDeque::new(),
            through: cursor,
            is_complete: false,
            rows: FIRST_ROWS,
        }
    }

    /// The position behind which it goes on.
    pub fn cursor(&self) -> Option<Uuid> {
        self.cursor
    }

    /// Returns whether a delivery was found and not fed yet.
    pub fn has_found(&self) -> bool {
        self.found.iter().any(|met| !met.is_unfinished)
    }

    /// Reads on, unless something is left of what was found.
    pub async fn look(
        &mut self,
        db: &Database,
        spec: &ReplaySpec,
        integration_id: IntegrationId,
        destination: &str,
    ) -> Result<()> {
        let walk = Walk::new(spec, integration_id, destination);
        let give_up = Instant::now() + PATIENCE;
        while !self.has_found() && !self.is_complete {
            match walk.read(db, self.through, self.rows, SLICE_TIME).await {
                Ok(slice) => {
                    self.through = slice.through.or(self.through);
                    self.is_complete = slice.is_last;
                    let passing = self.sift(db, slice.met).await?;
                    self.found.extend(passing);
                    let most = if self.sieve.is_some() { MOST_TESTED_ROWS } else { MOST_ROWS };
                    self.rows = (self.rows * 4).min(most);
                }
                Err(Error::Deadline) if self.rows > FEWEST_ROWS => {
                    self.rows = (self.rows / 8).max(FEWEST_ROWS);
                }
                Err(error) => return Err(error),
            }
            if Instant::now() >= give_up {
                break;
            }
        }
        Ok(())
    }

    async fn sift(&self, db: &Database, met: Vec<Met>) -> Result<Vec<Met>> {
        let Some(sieve) = &self.sieve else { return Ok(met) };
        let mut passing = Vec::new();
        for batch in met.chunks(sift::BATCH) {
            let events = sieve.pass(db, batch.iter().map(|met| met.event_id).collect()).await?;
            passing.extend(batch.iter().filter(|met| events.contains(&met.event_id)).copied());
        }
        Ok(passing)
    }

    /// Takes up to so many deliveries, with what was met before them.
    pub fn take(&mut self, most: usize) -> FoundDeliveries {
        let (cursor, mut events, mut unfinished) = (self.cursor, Vec::new(), 0);
        while let Some(met) = self.found.front().copied() {
            if !met.is_unfinished && events.len() == most {
                break;
            }
            self.found.pop_front();
            self.cursor = Some(met.event_id.uuid());
            match met.is_unfinished {
                true => unfinished += 1,
                false => events.push(met.event_id),
            }
        }
        if self.found.is_empty() {
            self.cursor = self.through;
        }
        let is_last = self.found.is_empty() && self.is_complete;
        FoundDeliveries { cursor, next_cursor: self.cursor, is_last, events, unfinished }
    }
}
