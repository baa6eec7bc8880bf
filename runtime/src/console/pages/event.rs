//! One event: what came, where it went, and what can be done about it.
//!
//! Bodies, values of headers and answers of receivers are hidden until somebody asks for them, by a form, and whoever does is audited. Until then the
//! page is that of a visitor who may not see payloads.

use askama::Template;
use axum::extract::Path;
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::known_integrations::{Known, KnownIntegrations};
use super::shown;
use crate::console::Outcome;
use crate::console::forms::Fields;
use crate::console::shell::{Section, Shell};
use crate::console::show::{self, Badge};
use crate::console::visitor::Visitor;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::management::model::{
    AuditEntryView, DeliveryStatusView, EventRecordView, EventStatusView, JobStatusView, ProcessingJobView,
};
use payload::Payload;
use payload_tree::Part as PayloadPart;
use timeline::{Attempt, Delivery, Timeline};

mod curl;
mod payload;
mod payload_tree;
mod timeline;

#[derive(Template)]
#[template(path = "console/event.html", blocks = ["live"])]
struct EventPage {
    shell: Shell,
    record: EventRecordView,
    integration: Option<Known>,
    timeline: Timeline,
    audit: Vec<AuditEntryView>,
    /// What was asked for.
    payload: Option<Payload>,
    may_see_payload: bool,
    may_replay: bool,
    may_erase: bool,
    /// Whether something will change without anybody's doing.
    is_live: bool,
}

impl EventPage {
    fn path(&self) -> String {
        format!("/events/{}", self.record.event.id)
    }

    /// The name of the secret that verified it.
    fn secret(&self) -> &'static str {
        match self.record.event.secret_index {
            0 => "the current secret",
            1 => "the previous secret",
            _ => "the secret before the previous one",
        }
    }

    /// What is wrong with deliveries that have not succeeded.
    fn errors(&self) -> Vec<(&str, &str)> {
        let open = self.record.deliveries.iter().filter(|delivery| Badge::from(delivery.status).tone != "ok");
        open.filter_map(|delivery| Some((&*delivery.destination, delivery.last_error.as_deref()?))).collect()
    }

    fn body_bytes(&self) -> usize {
        self.record.webhook.raw_body_bytes.unwrap_or_default()
    }
}

/// Shows the page without the payload.
pub(in crate::console) async fn page(visitor: Visitor, Path(id): Path<String>) -> Outcome {
    let page = read(&visitor, event_id(&id)?, None).await?;
    Ok(visitor.answer(&page, &page.as_live()))
}

/// Shows the page with the payload, which is audited. A field `find` has the text to look for in it.
pub(in crate::console) async fn show_payload(
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
) -> Outcome {
    let find = fields.get("find").unwrap_or_default();
    let page = read(&visitor, event_id(&id)?, Some(find)).await?;
    Ok(visitor.page(&page))
}

/// Replays the event, to all of its destinations or to one.
pub(in crate::console) async fn replay(visitor: Visitor, Path(id): Path<String>, fields: Fields) -> Outcome {
    let id = event_id(&id)?;
    visitor.operator.replay(id, replay_body(&fields)).await?;
    Ok(visitor.go(&format!("/events/{id}")))
}

/// Leads from the address of a form to the page that has the form.
pub(in crate::console) async fn to_page(visitor: Visitor, Path(id): Path<String>) -> Outcome {
    Ok(visitor.go(&format!("/events/{}", event_id(&id)?)))
}

/// Asks whether the event is to be erased.
pub(in crate::console) async fn confirm_erasure(visitor: Visitor, Path(id): Path<String>) -> Outcome {
    let record = visitor.operator.event_without_payload(event_id(&id)?).await?;
    let page = EraseEventPage { shell: Shell::new(&visitor, Section::Events), record };
    Ok(visitor.page(&page))
}

/// Erases the event.
pub(in crate::console) async fn erase(visitor: Visitor, Path(id): Path<String>, _: Fields) -> Outcome {
    let id = event_id(&id)?;
    visitor.operator.erase(id).await?;
    Ok(visitor.go(&format!("/events/{id}")))
}

#[derive(Template)]
#[template(path = "console/erase_event.html")]
struct EraseEventPage {
    shell: Shell,
    record: EventRecordView,
}

fn event_id(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::new(ErrorCode::NotFound, "There is no such event"))
}

/// Returns the body of the API's request to replay, from the fields of a form.
pub(super) fn replay_body(fields: &Fields) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("reason".to_owned(), fields.get("reason").unwrap_or_default().into());
    if let Some(destination) = fields.get("destination") {
        body.insert("destination".to_owned(), destination.into());
    }
    body.insert("requestedBy".to_owned(), "console".into());
    body
}

async fn read(visitor: &Visitor, id: Uuid, find: Option<&str>) -> Result<EventPage, ApiError> {
    let operator = &visitor.operator;
    let record = match find {
        Some(_) => operator.event_with_payload(id).await?,
        None => operator.event_without_payload(id).await?,
    };
    let integrations = KnownIntegrations::read(visitor).await?;
    let integration = integrations.get(record.event.integration_id).cloned();
    let of = record.event.integration_id;
    let audit = if visitor.rights.audit {
        operator.audit_entries(&format!("entityId={id}&pageSize=50")).await?.items
    } else {
        Vec::new()
    };
    let is_unfinished = matches!(
        record.event.status,
        EventStatusView::Pending | EventStatusView::Processing | EventStatusView::Retrying
    );
    let is_erased = record.event.erased_at.is_some();
    let route = integration.as_ref().map(|known| &*known.route);
    Ok(EventPage {
        shell: Shell::new(visitor, Section::Events),
        timeline: timeline(&record),
        payload: find.map(|find| Payload::new(&record, route, find)),
        may_see_payload: !is_erased && operator.may_see_payloads(of).await?,
        may_replay: !is_erased && integration.is_some() && operator.may_replay(of).await?,
        may_erase: !is_erased && operator.may_erase(of).await?,
        is_live: is_unfinished && find.is_none(),
        integration,
        audit,
        record,
    })
}

fn timeline(record: &EventRecordView) -> Timeline {
    let deliveries = record.deliveries.iter().map(|delivery| {
        let jobs = || record.processing_jobs.iter().filter(|job| job.destination == delivery.destination);
        let waiting = jobs().find(|job| matches!(job.status, JobStatusView::Queued));
        let is_finished = delivery.finished_at.is_some()
            && !matches!(
                delivery.status,
                DeliveryStatusView::Pending | DeliveryStatusView::Processing | DeliveryStatusView::Retrying
            );
        let badge = Badge::from(delivery.status);
        Delivery {
            destination: delivery.destination.clone(),
            class: badge.tone,
            outcome: outcome(badge.word, jobs(), waiting),
            finished_at: delivery.finished_at.filter(|_| is_finished).map(|time| time.0),
            next_at: waiting.map(|job| job.scheduled_at.0),
            attempts: jobs().filter_map(attempt).collect(),
        }
    });
    Timeline::new(record.event.received_at.0, Timestamp::now(), deliveries.collect())
}

fn attempt(job: &ProcessingJobView) -> Option<Attempt> {
    let is_made = !matches!(job.status, JobStatusView::Queued);
    Some(Attempt {
        number: job.attempt_no,
        started_at: job.started_at.filter(|_| is_made)?.0,
        completed_at: job.completed_at.map(|time| time.0),
        succeeded: matches!(job.status, JobStatusView::Succeeded),
    })
}

/// Returns what became of a delivery, and what comes next.
fn outcome<'a>(
    state: &str,
    jobs: impl Iterator<Item = &'a ProcessingJobView>,
    waiting: Option<&ProcessingJobView>,
) -> String {
    let attempts = jobs.filter_map(attempt).count();
    let mut text = match attempts {
        0 => state.to_owned(),
        1 => format!("{state}, 1 attempt"),
        more => format!("{state}, {more} attempts"),
    };
    if let Some(next) = waiting {
        let left = next.scheduled_at.0.duration_since(Timestamp::now());
        text += &if left.is_positive() {
            format!(", next in {}", show::span(left))
        } else {
            ", next attempt is due".to_owned()
        };
    }
    text
}
