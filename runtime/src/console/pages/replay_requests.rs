//! Requests to deliver one event again, the latest first.

use askama::Template;
use axum::extract::RawQuery;

use super::super::Outcome;
use super::super::shell::{Section, Shell};
use super::super::show::Badge;
use super::super::visitor::Visitor;
use crate::management::ListMeta;
use crate::management::model::ReplayRequestView;

#[derive(Template)]
#[template(path = "console/replay_requests.html", blocks = ["live"])]
struct ReplayRequestsPage {
    shell: Shell,
    requests: Vec<ReplayRequestView>,
    meta: ListMeta,
    next: String,
}

/// Shows the page. Its query is that of the API.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let raw = raw.unwrap_or_default();
    let listed = visitor.operator.replay_requests(&raw).await?;
    let page = ReplayRequestsPage {
        shell: Shell::new(&visitor, Section::Replays),
        next: super::next_page("/replays/requests", &raw, &listed.meta),
        requests: listed.items,
        meta: listed.meta,
    };
    Ok(visitor.answer(&page, &page.as_live()))
}
