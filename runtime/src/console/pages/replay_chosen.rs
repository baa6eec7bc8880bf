//! Replays the events that were chosen in the list.

use askama::Template;
use uuid::Uuid;

use super::event::replay_body;
use crate::console::Outcome;
use crate::console::forms::Fields;
use crate::console::shell::{Section, Shell};
use crate::console::show;
use crate::console::visitor::Visitor;
use crate::http::envelope::{ApiError, ErrorCode};

/// Events that are replayed at once: those of a page of the list.
const MAX_EVENTS: usize = 100;

#[derive(Template)]
#[template(path = "console/replay_chosen.html")]
struct ReplayChosenPage {
    shell: Shell,
    replayed: Vec<Uuid>,
    /// With the reason.
    refused: Vec<(Uuid, String)>,
}

/// Requests a replay of each event, and shows what became of each request.
pub(in crate::console) async fn replay(visitor: Visitor, fields: Fields) -> Outcome {
    let events: Vec<Uuid> = fields.all("event").filter_map(|id| Uuid::try_parse(id).ok()).collect();
    if events.is_empty() || events.len() > MAX_EVENTS {
        return Err(ApiError::invalid("event", format!("choose 1 to {MAX_EVENTS} events")).into());
    }
    let (mut replayed, mut refused) = (Vec::new(), Vec::new());
    for event in events {
        match visitor.operator.replay(event, replay_body(&fields)).await {
            Ok(_) => replayed.push(event),
            // What concerns one event only is no reason to stop.
            Err(error)
                if matches!(
                    error.code(),
                    ErrorCode::Conflict | ErrorCode::NotFound | ErrorCode::Forbidden
                ) =>
            {
                refused.push((event, error.message().to_owned()));
            }
            Err(error) if replayed.is_empty() && refused.is_empty() => return Err(error.into()),
            Err(error) => {
                refused.push((event, error.message().to_owned()));
                break;
            }
        }
    }
    let page = ReplayChosenPage { shell: Shell::new(&visitor, Section::Events), replayed, refused };
    Ok(visitor.page(&page))
}
