//! Tests events with expressions: that of a replay, and for events without a delivery the filter of the destination.
//!
//! Expressions are bounded (`grapnel_core::filter`), and evaluated on threads that may block, a few events at a time.

use std::sync::Arc;

use bytes::Bytes;
use grapnel_core::filter::{DestinationFilter, Expression, FilterContext, FilterInput, MAX_PAYLOAD_BYTES};
use grapnel_core::ids::EventId;
use grapnel_core::payload::BodyForm;
use grapnel_core::replay::{ReplaySelect, ReplaySpec};
use grapnel_crds::Destination;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::packed_headers;
use crate::stored_form::{body_form, first_of_millisecond};

/// Events that are read at a time: a bound for the payloads in memory.
pub(super) const BATCH: usize = 100;

/// What events of a destination must pass.
#[derive(Debug, Clone)]
pub(super) struct Sieve(Arc<Tests>);

#[derive(Debug)]
struct Tests {
    expression: Option<Expression>,
    destination: Option<DestinationFilter>,
}

impl Sieve {
    /// Makes the tests of a destination; `None` if there are none. A filter that no longer compiles lets nothing through, or everything, as its
    /// destination says.
    pub(super) fn new(spec: &ReplaySpec, destination: Option<&Destination>) -> Option<Self> {
        let expression = spec.filter.as_deref().and_then(|filter| Expression::compile(filter).ok());
        let destination = destination
            .filter(|_| spec.select == ReplaySelect::Missing)
            .and_then(|destination| DestinationFilter::new(destination).ok().flatten());
        let has_tests = expression.is_some() || destination.is_some();
        has_tests.then(|| Self(Arc::new(Tests { expression, destination })))
    }

    /// Returns those of the events that pass, in their order. At most [`BATCH`] are given.
    pub(super) async fn pass(&self, db: &Database, events: Vec<EventId>) -> Result<Vec<EventId>> {
        let inputs = self.read(db, &events).await?;
        let tests = Arc::clone(&self.0);
        let evaluate = move || {
            let passing = inputs.iter().filter(|input| tests.pass(input)).map(|input| input.id);
            passing.collect::<Vec<_>>()
        };
        // A panic of the library is caught before; if the thread ends all the same, nothing passes.
        let passing = tokio::task::spawn_blocking(evaluate).await.unwrap_or_default();
        Ok(events.into_iter().filter(|event| passing.contains(event)).collect())
    }

    async fn read(&self, db: &Database, events: &[EventId]) -> Result<Vec<FilterInput>> {
        let (Some(first), Some(last)) = (events.iter().min(), events.iter().max()) else {
            return Ok(Vec::new());
        };
        let uses = |expression: fn(&Expression) -> bool| {
            let own = self.0.expression.iter();
            let of_destination = self.0.destination.iter().filter_map(|filter| filter.expression.as_ref());
            own.chain(of_destination).any(expression)
        };
        db.bounded(async {
            // One byte more than is evaluated, so that what is too long is known to be.
            let rows = sqlx::query(
                "/* replay_jobs::sift::read */
                SELECT e.id, e.provider, e.external_event_id, e.event_type, e.subject, e.occurred_at, e.body_form,
                    CASE
                        WHEN NOT $5 THEN ''
                        WHEN e.payload IS NOT NULL THEN substring(e.payload FROM 1 FOR $7)
                        WHEN e.request_id IS NOT NULL THEN (
                            SELECT substring(r.raw_body FROM e.payload_start + 1 FOR LEAST(e.payload_length, $7))
                            FROM event_requests r WHERE r.id = e.request_id AND r.id BETWEEN $4 AND $3
                        )
                        ELSE substring(e.raw_body FROM e.payload_start + 1 FOR LEAST(e.payload_length, $7))
                    END AS payload,
                    CASE WHEN $6 THEN COALESCE((
                        SELECT r.headers FROM event_requests r WHERE r.id = e.request_id AND r.id BETWEEN $4 AND $3
                    ), e.headers)::text ELSE '[]' END AS headers,
                    CASE WHEN $6 THEN e.packed_headers END AS packed_headers
                FROM events e
                WHERE e.id = ANY($1) AND e.id BETWEEN $2 AND $3",
            )
            .bind(events.iter().map(|id| id.uuid()).collect::<Vec<_>>())
            .bind(first.uuid())
            .bind(last.uuid())
            .bind(first_of_millisecond(first.uuid()))
            .bind(uses(Expression::uses_payload))
            .bind(uses(Expression::uses_headers))
            .bind(i32::try_from(MAX_PAYLOAD_BYTES + 1).unwrap_or(i32::MAX))
            .fetch_all(db.pool())
            .await?;
            rows.iter().map(input).collect()
        })
        .await
    }
}

impl Tests {
    /// An expression of a replay that has no result for an event does not select it.
    fn pass(&self, input: &FilterInput) -> bool {
        let of_destination = self.destination.as_ref();
        if of_destination.is_some_and(|filter| !filter.includes(&input.event_type)) {
            return false;
        }
        let filter = of_destination.and_then(|filter| filter.expression.as_ref());
        let context = FilterContext::new(input, self.expression.iter().chain(filter));
        let is_selected =
            self.expression.as_ref().is_none_or(|own| context.evaluate(own).unwrap_or_default());
        let drops = of_destination.is_some_and(|filter| filter.drops_on_error);
        is_selected && filter.is_none_or(|filter| context.evaluate(filter).unwrap_or(!drops))
    }
}

fn input(row: &PgRow) -> Result<FilterInput> {
    let id = row.id("id", EventId::new)?;
    let corrupt = || Error::Corrupt { table: "events", column: "body_form", id: id.uuid() };
    let body_form: BodyForm = body_form(row.try_get("body_form")?).ok_or_else(corrupt)?;
    let payload: Option<Vec<u8>> = row.try_get("payload")?;
    Ok(FilterInput {
        id,
        event_type: row.try_get("event_type")?,
        subject: row.try_get("subject")?,
        provider: row.try_get::<&str, _>("provider")?.into(),
        external_event_id: row.try_get("external_event_id")?,
        occurred_at: row.time("occurred_at")?,
        body_form,
        payload: Bytes::from(payload.unwrap_or_default()),
        headers: packed_headers::json_text(row, id.uuid())?.unwrap_or_default(),
    })
}
