//! Who did what: the audit trail.

use askama::Template;
use axum::extract::RawQuery;
use serde_json::Value;

use super::known_integrations::KnownIntegrations;
use super::list_query::ListQuery;
use crate::console::Outcome;
use crate::console::shell::{Section, Shell};
use crate::console::show;
use crate::console::visitor::Visitor;
use crate::http::envelope::ErrorCode;
use crate::management::model::{AuditEntityView, AuditEntryView};
use crate::management::{ListMeta, Listed};

const PATH: &str = "/audit";

/// The actions that there are, for the field that is searched by.
const ACTIONS: [&str; 12] = [
    "access.denied",
    "event.erased",
    "event.processed",
    "event.test_sent",
    "integration.created",
    "integration.updated",
    "integration.removed",
    "payload.shown",
    "replay.requested",
    "replay.completed",
    "replay.failed",
    "webhook.received",
];

#[derive(Template)]
#[template(path = "console/audit.html")]
struct AuditPage {
    shell: Shell,
    query: ListQuery,
    integrations: KnownIntegrations,
    list: Option<Listed<AuditEntryView>>,
    /// What is wrong with the query.
    problem: Option<String>,
    next: String,
}

impl AuditPage {
    fn actions(&self) -> [&'static str; 12] {
        ACTIONS
    }

    fn entries(&self) -> &[AuditEntryView] {
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
    let (list, problem) = match visitor.operator.audit_entries(&query.for_api()).await {
        Ok(list) => (Some(list), None),
        Err(error) if error.code() == ErrorCode::ValidationError => (None, Some(error.message().to_owned())),
        Err(error) => return Err(error.into()),
    };
    let cursor = list.as_ref().and_then(|list| list.meta.next_cursor.as_ref());
    let page = AuditPage {
        shell: Shell::new(&visitor, Section::Audit),
        next: query.next(PATH, cursor),
        integrations: KnownIntegrations::read(&visitor).await?,
        query,
        list,
        problem,
    };
    Ok(visitor.page(&page))
}

/// Returns the path of what an entry is about, if there is a page of it.
pub(super) fn entity_path(entry: &AuditEntryView) -> Option<String> {
    match entry.entity_type {
        AuditEntityView::Event => Some(format!("/events/{}", entry.entity_id)),
        AuditEntityView::Integration => Some(format!("/integrations/{}", entry.entity_id)),
        AuditEntityView::ReplayRequest => None,
    }
}

/// Returns the details of an entry as `name: value` pairs.
pub(super) fn details(entry: &AuditEntryView) -> Vec<(String, String)> {
    let Ok(Value::Object(members)) = serde_json::from_str(entry.details.get()) else { return Vec::new() };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    members.into_iter().map(|(name, value)| (name, text(value))).collect()
}
