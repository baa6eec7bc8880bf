//! The events that match a query: found, followed as they come in, and chosen to be replayed.

use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::RawQuery;

use super::known_integrations::{Known, KnownIntegrations};
use super::list_query::ListQuery;
use crate::console::Outcome;
use crate::console::shell::{Section, Shell};
use crate::console::show::{self, Badge};
use crate::console::visitor::Visitor;
use crate::http::envelope::ErrorCode;
use crate::management::model::EventView;
use crate::management::{ListMeta, Listed};

pub(in crate::console) const PATH: &str = "/events";

/// A query that takes longer is not repeated every two seconds by everybody who looks.
pub(super) const LONGEST_LIVE: Duration = Duration::from_millis(500);

/// The filters that few need. They are open if one of them is given.
const FURTHER: [&str; 10] = [
    "namespace",
    "provider",
    "subject",
    "externalEventId",
    "correlationId",
    "httpStatus",
    "receivedTo",
    "from",
    "to",
    "sortBy",
];

/// Values of `status`.
const STATUSES: [&str; 6] = ["pending", "processing", "retrying", "processed", "failed", "filtered"];

#[derive(Template)]
#[template(path = "console/events.html", blocks = ["live"])]
struct EventsPage {
    shell: Shell,
    query: ListQuery,
    integrations: KnownIntegrations,
    views: Vec<SavedView>,
    list: Option<Listed<EventView>>,
    /// What is wrong with the query.
    problem: Option<String>,
    next: String,
    is_live: bool,
    may_replay: bool,
    /// Where what is found can be replayed.
    replay_path: String,
}

/// A query that is often wanted, as a link.
struct SavedView {
    title: &'static str,
    path: String,
    is_current: bool,
}

impl EventsPage {
    fn statuses(&self) -> [&'static str; 6] {
        STATUSES
    }

    fn is_further(&self) -> bool {
        self.query.has_any(&FURTHER)
    }

    fn known(&self, event: &EventView) -> Option<&Known> {
        self.integrations.get(event.integration_id)
    }

    fn events(&self) -> &[EventView] {
        self.list.as_ref().map_or(&[], |list| &list.items)
    }

    fn meta(&self) -> Option<&ListMeta> {
        self.list.as_ref().map(|list| &list.meta)
    }
}

/// Returns the path of a new replay of what a query finds, as far as a replay can select that.
fn replay_path(query: &ListQuery) -> String {
    let select = match query.get("status") {
        "failed" => "Failed",
        "filtered" => "Filtered",
        _ => "",
    };
    let selected = [
        ("integration", query.get("integration")),
        ("namespace", query.get("namespace")),
        ("destinations", query.get("destination")),
        ("eventTypes", query.get("eventType")),
        ("subject", query.get("subject")),
        ("httpStatus", query.get("httpStatus")),
        ("receivedAfter", query.get("receivedFrom")),
        ("receivedBefore", query.get("receivedTo")),
        ("select", select),
    ];
    selected
        .into_iter()
        .fold(ListQuery::default(), |path, (name, value)| path.with(name, value))
        .path("/replays/new")
}

/// Shows the page.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let query = match ListQuery::read(&visitor, PATH, raw.as_deref()) {
        Ok(query) => query,
        Err(redirect) => return Ok(*redirect),
    };
    let started = Instant::now();
    let (list, problem) = match visitor.operator.events(&query.for_api()).await {
        Ok(list) => (Some(list), None),
        Err(error) if error.code() == ErrorCode::ValidationError => (None, Some(error.message().to_owned())),
        Err(error) => return Err(error.into()),
    };
    let is_quick = started.elapsed() < LONGEST_LIVE;
    let is_complete = list.as_ref().is_some_and(|list| list.meta.scanned_through.is_none());
    let cursor = list.as_ref().and_then(|list| list.meta.next_cursor.as_ref());
    let page = EventsPage {
        shell: Shell::new(&visitor, Section::Events),
        next: query.next(PATH, cursor),
        views: saved_views(&query),
        integrations: KnownIntegrations::read(&visitor).await?,
        is_live: query.is_first_page() && is_quick && is_complete,
        may_replay: visitor.rights.replaying,
        replay_path: replay_path(&query),
        query,
        list,
        problem,
    };
    Ok(visitor.answer(&page, &page.as_live()))
}

fn saved_views(query: &ListQuery) -> Vec<SavedView> {
    let of_status = |title, status| SavedView {
        title,
        path: query.with("status", status).path(PATH),
        is_current: query.get("status") == status,
    };
    vec![
        of_status("All", ""),
        of_status("Failed", "failed"),
        of_status("Retrying", "retrying"),
        of_status("Waiting", "pending"),
        of_status("Filtered", "filtered"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_can_be_replayed() {
        let query = [
            ("status", "failed"),
            ("integration", "shop/orders"),
            ("q", "text"),
            ("receivedFrom", "2026-01-31T00:00:00Z"),
        ];
        let query = query.iter().fold(ListQuery::default(), |query, (name, value)| query.with(name, value));
        let expected =
            "/replays/new?integration=shop%2Forders&receivedAfter=2026-01-31T00%3A00%3A00Z&select=Failed";
        assert_eq!(replay_path(&query), expected);
        assert_eq!(replay_path(&ListQuery::default()), "/replays/new");
    }
}
