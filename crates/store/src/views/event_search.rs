//! Finding events by what only some of them have.
//!
//! A search walks a source: the index that serves the most selective of its filters, or all events. Each statement reads a slice of it (see
//! [`super::walk`]) and tests what it meets with the same conditions, in correlated scalar subqueries where they are about other tables: a
//! plan cannot flip to reading whole tables.

#[macro_use]
mod sources;
mod counts;
mod statements;

use self::counts::count_statement;
use self::statements::{Source, statement};
use super::events::{EventFilter, EventSelection, EventStatus};
use super::id_time::id_window;
use super::integration_scope::IntegrationScope;
use super::list_page::Statement;
use super::page::{Order, PageRequest};
use super::walk::{self, Slice, WalkedPage};
use crate::database::Database;
use crate::error::Result;

/// Searches events in the order of their ids. `scope` says which integrations they are of.
pub(super) async fn search(
    db: &Database,
    filter: &EventFilter,
    selection: Option<EventSelection>,
    order: Order,
    scope: &IntegrationScope,
    request: PageRequest,
) -> Result<WalkedPage> {
    if scope.is_nothing() {
        return Ok(WalkedPage::empty());
    }
    let source = source(filter, selection, scope);
    let subject = filter.subject_pattern();
    let (first, end) = id_window(filter.received_from, filter.received_until);
    let read = |text: &'static str, slice: Slice| -> Statement<'_> {
        sqlx::query(text)
            .bind(scope.ids())
            .bind(filter.provider.as_deref())
            .bind(filter.event_type.as_deref())
            .bind(subject.as_deref())
            .bind(filter.from.map(jiff_sqlx::Timestamp::from))
            .bind(filter.until.map(jiff_sqlx::Timestamp::from))
            .bind(filter.external_event_id.as_deref())
            .bind(filter.correlation_id.as_deref())
            .bind(filter.destination.as_deref())
            .bind(selection.map(EventSelection::as_str))
            .bind(filter.http_status)
            .bind(filter.text.as_deref().map(str::as_bytes))
            .bind(first)
            .bind(end)
            .bind(slice.after)
            .bind(slice.rows)
    };
    let text = statement(source, order);
    let count = count_statement(source, filter, selection, scope).map(|text| read(text, Slice::COUNTED));
    walk::walk_to_page(db, request, order == Order::Descending, |slice| read(text, slice), count).await
}

fn source(filter: &EventFilter, selection: Option<EventSelection>, scope: &IntegrationScope) -> Source {
    use EventSelection::{Filtered, Status};
    match selection {
        _ if filter.external_event_id.is_some() => Source::ExternalId,
        Some(Status(EventStatus::Failed)) => Source::Failed,
        Some(Filtered) => Source::Filtered,
        Some(Status(EventStatus::Pending | EventStatus::Processing | EventStatus::Retrying)) => Source::Open,
        None | Some(Status(EventStatus::Processed)) if scope.is_narrow() => match filter.event_type {
            Some(_) => Source::Types,
            None => Source::Integrations,
        },
        None | Some(Status(EventStatus::Processed)) => Source::Events,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_selective_filter_is_the_source() {
        use EventSelection::{Filtered, Status};
        let any = IntegrationScope::of(None);
        let few = IntegrationScope::of(Some(vec![uuid::Uuid::nil()]));
        let many = IntegrationScope::of(Some(vec![uuid::Uuid::nil(); 65]));
        let filter = EventFilter::default();
        let external = EventFilter { external_event_id: Some("evt-1".to_owned()), ..EventFilter::default() };
        let typed = EventFilter { event_type: Some("order.created".to_owned()), ..EventFilter::default() };
        for (filter, selection, scope, expected) in [
            (&filter, None, &any, Source::Events),
            (&filter, None, &many, Source::Events),
            (&filter, None, &few, Source::Integrations),
            (&filter, Some(Status(EventStatus::Processed)), &few, Source::Integrations),
            (&typed, None, &few, Source::Types),
            (&typed, None, &many, Source::Events),
            (&filter, Some(Status(EventStatus::Failed)), &few, Source::Failed),
            (&filter, Some(Status(EventStatus::Retrying)), &few, Source::Open),
            (&filter, Some(Filtered), &any, Source::Filtered),
            (&external, Some(Status(EventStatus::Failed)), &few, Source::ExternalId),
        ] {
            assert_eq!(source(filter, selection, scope), expected);
        }
    }
}
