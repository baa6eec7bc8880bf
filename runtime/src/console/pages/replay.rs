//! One replay: how far it is, and the ways to hold it.

use askama::Template;
use axum::extract::Path;
use grapnel_core::replay::DesiredState;
use jiff::SignedDuration;
use serde_json::Map;
use uuid::Uuid;

use super::known_integrations::KnownIntegrations;
use super::replays::{badge, done, title};
use crate::console::Outcome;
use crate::console::forms::Fields;
use crate::console::shell::{Section, Shell};
use crate::console::show;
use crate::console::visitor::Visitor;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::management::model::{ReplayStateView, ReplayView};

#[derive(Template)]
#[template(path = "console/replay.html", blocks = ["live"])]
struct ReplayPage {
    shell: Shell,
    replay: ReplayView,
    integrations: KnownIntegrations,
    may_change: bool,
    /// Whether it goes on.
    is_live: bool,
}

impl ReplayPage {
    fn may_pause(&self) -> bool {
        self.may_change && matches!(self.replay.state, ReplayStateView::Pending | ReplayStateView::Running)
    }

    fn may_resume(&self) -> bool {
        self.may_change && self.replay.state == ReplayStateView::Paused
    }

    fn may_cancel(&self) -> bool {
        self.may_pause() || self.may_resume()
    }

    fn time_left(&self) -> String {
        match self.replay.eta_seconds {
            Some(seconds) => {
                show::span(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
            }
            None => "–".to_owned(),
        }
    }

    fn name_of(&self, id: &Uuid) -> String {
        self.integrations.get(*id).map_or_else(|| id.to_string(), |known| known.reference())
    }

    /// The window of receipt, or that single events were named.
    fn window(&self) -> String {
        let spec = &self.replay.spec;
        match (&spec.event_ids, spec.received_after) {
            (Some(ids), _) => format!("{} events that were named", ids.len()),
            (None, Some(after)) => format!("received from {after:.0} to {:.0}", spec.received_before),
            (None, None) => format!("received before {:.0}", spec.received_before),
        }
    }
}

/// Shows the page.
pub(in crate::console) async fn page(visitor: Visitor, Path(id): Path<String>) -> Outcome {
    let replay = visitor.operator.replay_job(replay_id(&id)?).await?;
    let mut may_change = true;
    for id in &replay.integration_ids {
        may_change = may_change && visitor.operator.may_change_replays(*id).await?;
    }
    let has_ended = matches!(
        replay.state,
        ReplayStateView::Cancelled | ReplayStateView::Completed | ReplayStateView::Failed
    );
    let page = ReplayPage {
        shell: Shell::new(&visitor, Section::Replays),
        integrations: KnownIntegrations::read(&visitor).await?,
        may_change,
        is_live: !has_ended,
        replay,
    };
    Ok(visitor.answer(&page, &page.as_live()))
}

/// Pauses, resumes or cancels it, or changes its rate.
pub(in crate::console) async fn change(
    visitor: Visitor,
    Path((id, change)): Path<(String, String)>,
    fields: Fields,
) -> Outcome {
    let id = replay_id(&id)?;
    let operator = &visitor.operator;
    match change.as_str() {
        "pause" => operator.ask_replay(id, DesiredState::Paused).await?,
        "resume" => operator.ask_replay(id, DesiredState::Running).await?,
        "cancel" => operator.ask_replay(id, DesiredState::Cancelled).await?,
        "rate" => {
            let rate = super::new_replay::number(fields.get("ratePerSecond").unwrap_or_default());
            operator.change_replay(id, Map::from_iter([("ratePerSecond".to_owned(), rate)])).await?
        }
        _ => return Err(ApiError::new(ErrorCode::NotFound, "There is no page at this address").into()),
    };
    Ok(visitor.go(&format!("/replays/{id}")))
}

/// Leads from the address of a form to the page that has the form.
pub(in crate::console) async fn to_page(visitor: Visitor, Path((id, _)): Path<(String, String)>) -> Outcome {
    Ok(visitor.go(&format!("/replays/{}", replay_id(&id)?)))
}

fn replay_id(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::new(ErrorCode::NotFound, "There is no such replay"))
}

/// The filters of a replay, each with its name.
fn filters(replay: &ReplayView) -> Vec<(&'static str, String)> {
    let spec = &replay.spec;
    let joined = |texts: &Vec<String>| texts.join(", ");
    let given = [
        ("Destinations", spec.destinations.as_ref().map(joined)),
        ("Types", spec.event_types.as_ref().map(joined)),
        ("In the subject", spec.subject.clone()),
        ("Last HTTP status", spec.http_status.map(|status| status.to_string())),
        ("In the error", spec.error_contains.clone()),
        ("Expression", spec.filter.clone()),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name, show::text(&value?, 2_048)))).collect()
}

fn order(replay: &ReplayView) -> &'static str {
    match replay.spec.order {
        grapnel_core::replay::ReplayOrder::OldestFirst => "oldest first",
        grapnel_core::replay::ReplayOrder::NewestFirst => "newest first",
    }
}
