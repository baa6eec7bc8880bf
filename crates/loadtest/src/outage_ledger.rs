//! The ledger of an outage: how often each delivery arrived after it.
//!
//! While the outage lasts every delivery is answered 500 and only counted. Afterwards each delivery, an event and a destination, has a
//! counter; nothing else remembers it.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, StatusCode};

use self::kept_rate::Arrivals;
pub use self::kept_rate::KeptRate;
use crate::ledger::MAX_NUMBERS;

mod kept_rate;

/// How many missing deliveries are listed, so that they can be looked up.
const MAX_LISTED: usize = 20;

const REPLAY_ID: &str = "grapnel-replay-id";

pub(crate) struct OutageLedger {
    events: u64,
    /// The last segments of the paths of the destinations. Empty: there is one, with any path.
    destinations: Vec<String>,
    knows_bodies: bool,
    is_over: AtomicBool,
    refused: AtomicU64,
    strangers: AtomicU64,
    /// By destination and number.
    counts: Box<[AtomicU16]>,
    recovered: Mutex<Recovered>,
}

/// What happened since the end of the outage.
#[derive(Default)]
struct Recovered {
    at: Option<Instant>,
    arrivals: Arrivals,
    /// The replay of the first delivery, and the deliveries that are not of it.
    replay: Option<Option<HeaderValue>>,
    of_others: u64,
}

/// What has become of the deliveries.
#[derive(Debug, PartialEq)]
pub(crate) struct OutageTotals {
    pub(crate) arrived: u64,
    pub(crate) missing: u64,
    /// `DESTINATION/NUMBER` of the first of them.
    pub(crate) listed: Vec<String>,
    pub(crate) arrived_twice_or_more: u64,
    /// Arrivals after the first of their delivery.
    pub(crate) repeats: u64,
    /// Deliveries that were refused in the outage, each attempt for itself.
    pub(crate) refused: u64,
    /// Deliveries to other paths, and of numbers that are not part of the run.
    pub(crate) strangers: u64,
    pub(crate) of_other_replays: u64,
    /// The replay of the first delivery.
    pub(crate) replay_id: Option<String>,
    pub(crate) kept_rate: Option<KeptRate>,
}

impl OutageLedger {
    /// `knows_bodies`: the events were sent by this run, so what is in them is known.
    pub(crate) fn new(events: u64, destinations: Vec<String>, knows_bodies: bool) -> Self {
        let deliveries = (events * destinations.len().max(1) as u64).min(MAX_NUMBERS);
        Self {
            events,
            destinations,
            knows_bodies,
            is_over: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
            counts: (0..deliveries).map(|_| AtomicU16::new(0)).collect(),
            recovered: Mutex::default(),
        }
    }

    /// Returns how many deliveries there are.
    pub(crate) fn expected(&self) -> u64 {
        self.counts.len() as u64
    }

    pub(crate) fn knows_bodies(&self) -> bool {
        self.knows_bodies
    }

    /// Ends the outage.
    pub(crate) fn recover(&self) {
        self.recovered().at = Some(Instant::now());
        self.is_over.store(true, Ordering::Release);
    }

    /// Records a delivery, and returns how it is answered.
    pub(crate) fn record(
        &self,
        path: &str,
        headers: &HeaderMap,
        number: u64,
        arrived: Instant,
    ) -> StatusCode {
        if !self.is_over.load(Ordering::Acquire) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        let Some(count) = self.count_of(path, number) else {
            self.strangers.fetch_add(1, Ordering::Relaxed);
            return StatusCode::OK;
        };
        // Saturating: it fails at the largest number.
        let _more = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_add(1));
        let replay = headers.get(REPLAY_ID);
        let mut recovered = self.recovered();
        if let Some(at) = recovered.at {
            recovered.arrivals.add(arrived.saturating_duration_since(at));
        }
        if recovered.replay.get_or_insert_with(|| replay.cloned()).as_ref() != replay {
            recovered.of_others += 1;
        }
        StatusCode::OK
    }

    fn count_of(&self, path: &str, number: u64) -> Option<&AtomicU16> {
        if number >= self.events {
            return None;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let destination = match self.destinations.as_slice() {
            [] => 0,
            names => names.iter().position(|known| known == name)? as u64,
        };
        self.counts.get(usize::try_from(destination * self.events + number).ok()?)
    }

    /// Counts everything. The result is exact only when the sink has stopped.
    pub(crate) fn totals(&self) -> OutageTotals {
        let recovered = self.recovered();
        let replay_id = recovered.replay.as_ref().and_then(|id| Some(id.as_ref()?.to_str().ok()?.to_owned()));
        let mut totals = OutageTotals {
            arrived: 0,
            missing: 0,
            listed: Vec::new(),
            arrived_twice_or_more: 0,
            repeats: 0,
            refused: self.refused.load(Ordering::Acquire),
            strangers: self.strangers.load(Ordering::Acquire),
            of_other_replays: recovered.of_others,
            replay_id,
            kept_rate: recovered.arrivals.kept_rate(),
        };
        for (delivery, count) in (0..).zip(&self.counts) {
            let count = u64::from(count.load(Ordering::Acquire));
            totals.arrived += u64::from(count > 0);
            totals.arrived_twice_or_more += u64::from(count > 1);
            totals.repeats += count.saturating_sub(1);
            if count == 0 {
                totals.missing += 1;
                if totals.listed.len() < MAX_LISTED {
                    totals.listed.push(self.name(delivery));
                }
            }
        }
        totals
    }

    fn name(&self, delivery: u64) -> String {
        let (destination, number) = (delivery / self.events.max(1), delivery % self.events.max(1));
        let name = usize::try_from(destination).ok().and_then(|index| self.destinations.get(index));
        name.map_or_else(|| number.to_string(), |name| format!("{name}/{number}"))
    }

    /// These figures are usable after a panic elsewhere.
    fn recovered(&self) -> MutexGuard<'_, Recovered> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_replay(id: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(REPLAY_ID), HeaderValue::from_static(id))])
    }

    #[test]
    fn a_delivery_is_missing_until_it_arrives_after_the_outage() {
        let ledger = OutageLedger::new(3, vec!["one".to_owned(), "two".to_owned()], true);
        let record = |path: &str, number, id| ledger.record(path, &of_replay(id), number, Instant::now());
        assert_eq!(ledger.expected(), 6);
        assert_eq!(record("/one", 0, "a"), StatusCode::INTERNAL_SERVER_ERROR);
        ledger.recover();
        for (path, number, id) in [
            ("/one", 0, "a"),
            ("/one", 1, "a"),
            ("/hooks/two", 1, "a"),
            ("/one", 1, "b"),
            ("/one", 1, "a"),
            // Of another destination, and of no event.
            ("/three", 1, "a"),
            ("/one", 3, "a"),
            ("/one", u64::MAX, "a"),
        ] {
            assert_eq!(record(path, number, id), StatusCode::OK);
        }
        let totals = ledger.totals();
        assert_eq!((totals.refused, totals.arrived, totals.missing, totals.strangers), (1, 3, 3, 3));
        assert_eq!(totals.listed, ["one/2", "two/0", "two/2"]);
        assert_eq!((totals.arrived_twice_or_more, totals.repeats, totals.of_other_replays), (1, 2, 1));
        assert_eq!(totals.replay_id.as_deref(), Some("a"));
    }

    #[test]
    fn one_destination_has_any_path() {
        let ledger = OutageLedger::new(2, Vec::new(), true);
        ledger.recover();
        ledger.record("/", &HeaderMap::new(), 1, Instant::now());
        let totals = ledger.totals();
        assert_eq!((totals.arrived, totals.listed, totals.replay_id), (1, vec!["0".to_owned()], None));
    }
}
