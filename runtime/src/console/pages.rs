//! The pages, one in each file.

mod shown;
mod list_query;
mod known_integrations;
pub(super) mod overview;
pub(super) mod integration;
pub(super) mod events;
pub(super) mod event;
pub(super) mod replay_chosen;
pub(super) mod deliveries;
pub(super) mod rejections;
pub(super) mod audit;
pub(super) mod tools;
pub(super) mod replays;
pub(super) mod replay;
pub(super) mod new_replay;
pub(super) mod replay_requests;

use crate::management::ListMeta;
use crate::management::model::IntegrationView;

/// How far back a replay reaches that is offered beside what fails now.
const REPLAYED: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Returns the form of a replay of what failed for a destination in the last day, below the root. It still has to be looked at and sent.
fn replay_of_failed(integration: &IntegrationView, destination: &str) -> String {
    let minute = jiff::TimestampRound::new().smallest(jiff::Unit::Minute).mode(jiff::RoundMode::Floor);
    let since = jiff::Timestamp::now() - REPLAYED;
    let since = since.round(minute).unwrap_or(since);
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("integration", &format!("{}/{}", integration.namespace, integration.name))
        .append_pair("destinations", destination)
        .append_pair("select", "Failed")
        .append_pair("receivedAfter", &since.to_string())
        .finish();
    format!("/replays/new?{query}")
}

/// Returns the path of the page after this one, with the same query; empty on the last.
fn next_page(path: &str, raw: &str, meta: &ListMeta) -> String {
    let Some(cursor) = &meta.next_cursor else { return String::new() };
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let pairs = url::form_urlencoded::parse(raw.as_bytes());
    query.extend_pairs(pairs.filter(|(name, _)| name != "page" && name != "cursor"));
    query.append_pair("cursor", cursor);
    format!("{path}?{}", query.finish())
}
