//! What an expression would do with the last events of an Integration.

use askama::Template;
use axum::extract::RawQuery;
use axum::response::IntoResponse;
use grapnel_core::filter::EvaluationError;

use super::{as_problem, integration_id};
use crate::console::Outcome;
use crate::console::pages::known_integrations::KnownIntegrations;
use crate::console::pages::list_query::ListQuery;
use crate::console::shell::{Section, Shell};
use crate::console::show;
use crate::console::visitor::Visitor;
use crate::management::FilterTrial;

const PATH: &str = "/tools/filter";

#[derive(Template)]
#[template(path = "console/filter.html")]
struct FilterPage {
    shell: Shell,
    integrations: KnownIntegrations,
    integration: String,
    expression: String,
    trial: Option<FilterTrial>,
    problem: Option<String>,
}

fn reason(error: &EvaluationError) -> String {
    show::text(&error.to_string(), 300)
}

/// Shows the form and, if the query has an expression, what that does.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let query = match ListQuery::read(&visitor, PATH, raw.as_deref()) {
        Ok(query) => query,
        Err(redirect) => return Ok(redirect.into_response()),
    };
    visitor.operator.require_payloads_somewhere().await?;
    let (integration, expression) = (query.get("integration"), query.get("expression"));
    let tried = if expression.is_empty() {
        Ok(None)
    } else {
        let tried = match integration_id(integration) {
            Ok(id) => visitor.operator.try_filter(id, expression).await,
            Err(error) => Err(error),
        };
        as_problem(tried)?.map(Some)
    };
    let (trial, problem) = match tried {
        Ok(trial) => (trial, None),
        Err(problem) => (None, Some(problem)),
    };
    let page = FilterPage {
        shell: Shell::new(&visitor, Section::Tools),
        integrations: KnownIntegrations::read(&visitor).await?,
        integration: integration.to_owned(),
        expression: expression.to_owned(),
        trial,
        problem,
    };
    Ok(visitor.page(&page))
}
