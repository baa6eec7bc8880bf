//! The expressions that were given up, and those that are switched off for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use grapnel_core::filter::{DestinationSet, EvaluationError};
use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::CompiledIntegration;

use super::FilterResults;

/// How often in a row an expression is given up before it is switched off.
const STRIKES: u32 = 3;

/// Counts for each Integration how often in a row the expressions of its current generation were given up.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    by_integration: Mutex<HashMap<IntegrationId, OfGeneration>>,
    /// The number of entries, which is nearly always zero.
    integrations: AtomicUsize,
}

#[derive(Debug, Default)]
struct OfGeneration {
    generation: i64,
    /// By the position of the destination.
    strikes: HashMap<usize, u32>,
}

impl Strikes {
    /// Returns the destinations whose expressions are switched off.
    pub(super) fn switched_off(&self, integration: &CompiledIntegration) -> DestinationSet {
        let mut off = DestinationSet::default();
        if self.integrations.load(Ordering::Acquire) == 0 {
            return off;
        }
        let known = self.entries();
        let of_integration = known.get(&integration.row.id);
        let current = of_integration.filter(|known| known.generation == integration.row.generation);
        for (position, strikes) in current.iter().flat_map(|known| &known.strikes) {
            if *strikes >= STRIKES {
                off.insert(*position);
            }
        }
        off
    }

    /// Counts one more; returns whether the expression is switched off by it.
    pub(super) fn add(&self, integration: &CompiledIntegration, position: usize) -> bool {
        let mut known = self.entries();
        let of_integration = known.entry(integration.row.id).or_default();
        if of_integration.generation != integration.row.generation {
            *of_integration =
                OfGeneration { generation: integration.row.generation, strikes: HashMap::new() };
        }
        let strikes = of_integration.strikes.entry(position).or_default();
        *strikes = strikes.saturating_add(1);
        let is_off = *strikes >= STRIKES;
        self.integrations.store(known.len(), Ordering::Release);
        is_off
    }

    /// Forgets the strikes of expressions that have ended in time and are not switched off.
    pub(super) fn clear(&self, integration: &CompiledIntegration, results: &FilterResults) {
        if self.integrations.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut known = self.entries();
        let Some(of_integration) = known.get_mut(&integration.row.id) else { return };
        let in_time = results.iter().filter(|(_, result)| *result != Err(EvaluationError::TimedOut));
        for (position, _) in in_time {
            of_integration.strikes.retain(|known, strikes| known != position || *strikes >= STRIKES);
        }
        if of_integration.strikes.is_empty() {
            known.remove(&integration.row.id);
        }
        self.integrations.store(known.len(), Ordering::Release);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<IntegrationId, OfGeneration>> {
        // Nothing panics while this is held.
        self.by_integration.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
