//! Replays: jobs that deliver many deliveries again, the latest first.

use askama::Template;
use axum::extract::RawQuery;

use super::list_query::ListQuery;
use crate::console::Outcome;
use crate::console::shell::{Section, Shell};
use crate::console::show::{self, Badge};
use crate::console::visitor::Visitor;
use crate::management::Listed;
use crate::management::model::{ReplayStateView, ReplayView};

const PATH: &str = "/replays";

#[derive(Template)]
#[template(path = "console/replays.html", blocks = ["live"])]
struct ReplaysPage {
    shell: Shell,
    list: Listed<ReplayView>,
    next: String,
    is_live: bool,
    may_replay: bool,
}

/// Shows the page. Its query is that of the API.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let query = match ListQuery::read(&visitor, PATH, raw.as_deref()) {
        Ok(query) => query,
        Err(redirect) => return Ok(*redirect),
    };
    let list = visitor.operator.replays(&query.for_api()).await?;
    let page = ReplaysPage {
        shell: Shell::new(&visitor, Section::Replays),
        next: query.next(PATH, list.meta.next_cursor.as_ref()),
        is_live: query.is_first_page(),
        may_replay: visitor.rights.replaying,
        list,
    };
    Ok(visitor.answer(&page, &page.as_live()))
}

/// Returns the state of a replay as it is shown.
pub(super) fn badge(state: &ReplayStateView) -> Badge {
    match state {
        ReplayStateView::Pending => Badge::new("wait", "pending"),
        ReplayStateView::Running => Badge::new("wait", "running"),
        ReplayStateView::Paused => Badge::new("off", "paused"),
        ReplayStateView::Cancelling => Badge::new("wait", "cancelling"),
        ReplayStateView::Cancelled => Badge::new("off", "cancelled"),
        ReplayStateView::Completed => Badge::new("ok", "completed"),
        ReplayStateView::Failed => Badge::new("bad", "failed"),
    }
}

/// Returns what a replay selects, in a few words.
pub(super) fn title(replay: &ReplayView) -> String {
    use grapnel_core::replay::ReplaySelect::{All, Failed, Filtered, Missing};
    let what = match replay.spec.select {
        Failed => "failed deliveries",
        Filtered => "deliveries that filters left out",
        Missing => "deliveries that are missing",
        All => "all deliveries",
    };
    match &replay.spec.destinations {
        Some(names) => format!("{what} to {}", show::text(&names.join(", "), 200)),
        None => what.to_owned(),
    }
}

/// Returns how much of a replay was fed or skipped, in deliveries.
pub(super) fn done(replay: &ReplayView) -> u64 {
    replay.counters.fed + replay.counters.skipped.total
}
