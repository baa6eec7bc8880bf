//! A test event through the deliveries of an Integration.

use askama::Template;
use axum::extract::RawQuery;
use axum::response::IntoResponse;
use serde_json::{Map, Value};

use super::{as_problem, integration_id};
use crate::console::Outcome;
use crate::console::forms::Fields;
use crate::console::pages::known_integrations::{Known, KnownIntegrations};
use crate::console::pages::list_query::ListQuery;
use crate::console::shell::{Section, Shell};
use crate::console::show;
use crate::console::visitor::Visitor;
use crate::http::envelope::ApiError;
use crate::management::TestEventSent;

const PATH: &str = "/tools/test-event";

/// What the form has.
#[derive(Debug, Default)]
struct Draft {
    event_type: String,
    subject: String,
    payload: String,
    destinations: Vec<String>,
}

#[derive(Template)]
#[template(path = "console/test_event.html")]
struct TestEventPage {
    shell: Shell,
    integrations: KnownIntegrations,
    /// The one that is chosen.
    chosen: Option<Known>,
    draft: Draft,
    problem: Option<String>,
}

/// Shows the form, of the Integration that the query names.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let query = match ListQuery::read(&visitor, PATH, raw.as_deref()) {
        Ok(query) => query,
        Err(redirect) => return Ok(redirect.into_response()),
    };
    let draft = Draft {
        event_type: "grapnel.test".to_owned(),
        payload: "{\n  \"test\": true\n}".to_owned(),
        ..Draft::default()
    };
    answer(&visitor, query.get("integration"), draft, None).await
}

/// Sends the event, and leads to it.
pub(in crate::console) async fn send(visitor: Visitor, fields: Fields) -> Outcome {
    let field = |name| fields.get(name).unwrap_or_default().to_owned();
    let draft = Draft {
        event_type: field("eventType"),
        subject: field("subject"),
        payload: field("payload"),
        destinations: fields.all("destination").map(str::to_owned).collect(),
    };
    let integration = field("integration");
    match as_problem(try_send(&visitor, &integration, &draft).await)? {
        Ok(sent) => Ok(visitor.go(&format!("/events/{}", sent.event_id))),
        Err(problem) => answer(&visitor, &integration, draft, Some(problem)).await,
    }
}

async fn try_send(visitor: &Visitor, integration: &str, draft: &Draft) -> Result<TestEventSent, ApiError> {
    let id = integration_id(integration)?;
    let payload: Value = serde_json::from_str(&draft.payload)
        .map_err(|error| ApiError::invalid("payload", format!("must be JSON ({error})")))?;
    let mut body = Map::new();
    body.insert("eventType".to_owned(), draft.event_type.clone().into());
    if !draft.subject.is_empty() {
        body.insert("subject".to_owned(), draft.subject.clone().into());
    }
    body.insert("payload".to_owned(), payload);
    body.insert("destinations".to_owned(), draft.destinations.clone().into());
    visitor.operator.send_test_event(id, body).await
}

async fn answer(visitor: &Visitor, integration: &str, draft: Draft, problem: Option<String>) -> Outcome {
    let integrations = KnownIntegrations::read(visitor).await?;
    let page = TestEventPage {
        shell: Shell::new(visitor, Section::Tools),
        chosen: integrations.named(integration).cloned(),
        integrations,
        draft,
        problem,
    };
    Ok(visitor.page(&page))
}
