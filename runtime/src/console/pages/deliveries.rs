//! The attempts to deliver that match a query.

use askama::Template;
use axum::extract::RawQuery;

use super::events::LONGEST_LIVE;
use super::known_integrations::{Known, KnownIntegrations};
use super::list_query::ListQuery;
use super::shown;
use crate::console::Outcome;
use crate::console::shell::{Section, Shell};
use crate::console::show::{self, Badge};
use crate::console::visitor::Visitor;
use crate::http::envelope::ErrorCode;
use crate::management::model::AttemptView;
use crate::management::{ListMeta, Listed};

const PATH: &str = "/deliveries";

#[derive(Template)]
#[template(path = "console/deliveries.html", blocks = ["live"])]
struct DeliveriesPage {
    shell: Shell,
    query: ListQuery,
    integrations: KnownIntegrations,
    list: Option<Listed<AttemptView>>,
    /// What is wrong with the query.
    problem: Option<String>,
    next: String,
    is_live: bool,
}

impl DeliveriesPage {
    fn known(&self, attempt: &AttemptView) -> Option<&Known> {
        self.integrations.get(attempt.integration_id)
    }

    fn attempts(&self) -> &[AttemptView] {
        self.list.as_ref().map_or(&[], |list| &list.items)
    }

    fn meta(&self) -> Option<&ListMeta> {
        self.list.as_ref().map(|list| &list.meta)
    }
}

/// Shows the page.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let query = match ListQuery::read(&visitor, PATH, raw.as_deref()) {
        Ok(query) => query,
        Err(redirect) => return Ok(*redirect),
    };
    let started = std::time::Instant::now();
    let (list, problem) = match visitor.operator.deliveries(&query.for_api()).await {
        Ok(list) => (Some(list), None),
        Err(error) if error.code() == ErrorCode::ValidationError => (None, Some(error.message().to_owned())),
        Err(error) => return Err(error.into()),
    };
    let is_quick = started.elapsed() < LONGEST_LIVE;
    let is_complete = list.as_ref().is_some_and(|list| list.meta.scanned_through.is_none());
    let cursor = list.as_ref().and_then(|list| list.meta.next_cursor.as_ref());
    let page = DeliveriesPage {
        shell: Shell::new(&visitor, Section::Deliveries),
        next: query.next(PATH, cursor),
        integrations: KnownIntegrations::read(&visitor).await?,
        is_live: query.is_first_page() && is_quick && is_complete,
        query,
        list,
        problem,
    };
    Ok(visitor.answer(&page, &page.as_live()))
}
