//! Records for which events filters could not be evaluated, so that the controller reports it.
//!
//! Only the last error of each destination is kept, and written every few seconds, so a filter that fails for each event costs no more
//! than one that fails once. A crash loses at most that time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::filter::EvaluationError;
use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::integration::CompiledIntegration;
use grapnel_store::Database;
use grapnel_store::filter_errors::{self as rows, FilterErrorRow};
use tokio_util::sync::CancellationToken;

/// How often errors are written.
const PERIOD: Duration = Duration::from_secs(5);

/// The errors since the last write, by Integration and position of the destination. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilterErrors(Arc<Mutex<HashMap<(IntegrationId, usize), FilterErrorRow>>>);

impl FilterErrors {
    /// Notes that the filter of the destination at a position could not be evaluated for an event.
    pub(super) fn note(
        &self,
        integration: &CompiledIntegration,
        position: usize,
        event: EventId,
        error: EvaluationError,
    ) {
        let Some(destination) = integration.destination_names.get(position) else { return };
        let row = FilterErrorRow {
            integration_id: integration.row.id,
            destination: destination.to_string(),
            generation: integration.row.generation,
            error: error.to_string(),
            sample_event_id: event,
            errors: 1,
        };
        // Nothing panics while this is held.
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = errors
            .entry((integration.row.id, position))
            .or_insert_with(|| FilterErrorRow { errors: 0, ..row.clone() });
        let before = if noted.generation == row.generation { noted.errors } else { 0 };
        *noted = FilterErrorRow { errors: before.saturating_add(1), ..row };
    }

    fn take(&self) -> Vec<FilterErrorRow> {
        let errors = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        errors.into_values().collect()
    }
}

/// Writes the errors until the token is cancelled, and once more at the end.
pub(crate) async fn run(db: Database, errors: FilterErrors, stop: CancellationToken) {
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none();
        let rows = errors.take();
        if !rows.is_empty()
            && let Err(error) = rows::note(&db, &rows).await
        {
            tracing::warn!(error = %chain(&error), "the errors of filters were not recorded");
        }
        if stopped {
            return;
        }
    }
}
