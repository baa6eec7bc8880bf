//! The totals that indexes tell: nothing has to be tested.

use super::statements::Source;
use crate::columns::is_any_integration;
use crate::views::events::{EventFilter, EventSelection, EventStatus};
use crate::views::integration_scope::IntegrationScope;

/// Returns the statement that counts the rows of a slice of a source, if an index says which of them pass. It may say nothing (NULL).
pub(super) fn count_statement(
    source: Source,
    filter: &EventFilter,
    selection: Option<EventSelection>,
    scope: &IntegrationScope,
) -> Option<&'static str> {
    let (all, processed, is_of_scope) = match source {
        Source::Events => (EVENTS, PROCESSED_EVENTS, scope.is_any() && filter.event_type.is_none()),
        Source::Integrations => (INTEGRATIONS, PROCESSED_OF_INTEGRATIONS, filter.event_type.is_none()),
        Source::Types => (TYPES, PROCESSED_OF_TYPES, true),
        Source::ExternalId | Source::Failed | Source::Filtered | Source::Open => return None,
    };
    let is_tested = filter.provider.is_some()
        || filter.subject.is_some()
        || filter.from.is_some()
        || filter.until.is_some()
        || filter.destination.is_some()
        || filter.external_event_id.is_some()
        || filter.correlation_id.is_some()
        || filter.http_status.is_some()
        || filter.text.is_some();
    if !is_of_scope || is_tested {
        return None;
    }
    match selection {
        None => Some(all),
        Some(EventSelection::Status(EventStatus::Processed)) => Some(processed),
        Some(_) => None,
    }
}

macro_rules! count_statement {
    ($name:literal, $source:expr) => {
        concat!("/* views::event_search::", $name, " */ SELECT count(*) FROM (", $source, ") AS counted")
    };
}

/// Whether so many are surely processed, as `views::more_processed` does it: all are, but for at most one for each delivery that is unfinished or
/// failed. Of the failed ones, an index has those of all integrations together.
macro_rules! processed_statement {
    ($name:literal, $unfinished:literal, $source:expr) => {
        concat!(
            "/* views::event_search::",
            $name,
            " */
        WITH unprocessed AS MATERIALIZED (
            SELECT (SELECT count(*) FROM (",
            $unfinished,
            " LIMIT 10001) AS unfinished) + (
                SELECT count(*) FROM (
                    SELECT FROM deliveries WHERE finished_at IS NOT NULL AND last_error IS NOT NULL
                    ORDER BY event_id LIMIT 10001
                ) AS failed
            ) AS deliveries
        )
        SELECT CASE WHEN deliveries <= 10000 AND deliveries + $16 = (SELECT count(*) FROM (",
            $source,
            ") AS counted) THEN $16 END
        FROM unprocessed"
        )
    };
}

macro_rules! processed_of_integrations_statement {
    ($name:literal, $source:expr) => {
        processed_statement!(
            $name,
            "SELECT FROM unnest($1::uuid[]) AS integration (id) CROSS JOIN LATERAL (
                    SELECT FROM deliveries
                    WHERE finished_at IS NULL AND integration_id = integration.id
                    ORDER BY destination, event_id LIMIT 10001
                ) AS of_integration",
            $source
        )
    };
}

const EVENTS: &str = count_statement!("count_events", all_events!("<", "DESC"));
const INTEGRATIONS: &str = count_statement!("count_of_integrations", events_of_integrations!(DESC));
const TYPES: &str = count_statement!("count_of_types", events_of_types!(DESC));
const PROCESSED_EVENTS: &str = processed_statement!(
    "count_processed",
    "SELECT FROM deliveries WHERE finished_at IS NULL ORDER BY integration_id, destination, event_id",
    all_events!("<", "DESC", "(SELECT $16 + deliveries FROM unprocessed)")
);
const PROCESSED_OF_INTEGRATIONS: &str = processed_of_integrations_statement!(
    "count_processed_of_integrations",
    events_of_integrations!(DESC, "(SELECT $16 + deliveries FROM unprocessed)")
);
const PROCESSED_OF_TYPES: &str = processed_of_integrations_statement!(
    "count_processed_of_types",
    events_of_types!(DESC, "(SELECT $16 + deliveries FROM unprocessed)")
);
