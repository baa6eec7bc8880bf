//! A new replay: first counted, then started with the number that was counted.
//!
//! What is counted is an address like any other, so a colleague can be asked whether it is right. Only the start is a change.

use askama::Template;
use axum::extract::RawQuery;
use grapnel_core::replay::at_least;
use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::known_integrations::KnownIntegrations;
use super::list_query::ListQuery;
use super::tools::as_problem;
use crate::console::Outcome;
use crate::console::forms::Fields;
use crate::console::shell::{Section, Shell};
use crate::console::show;
use crate::console::visitor::Visitor;
use crate::http::envelope::ApiError;
use crate::management::{Begun, EstimateView};

const PATH: &str = "/replays/new";

/// The fields of the form that are texts of the API's body.
const TEXTS: [&str; 10] = [
    "integration",
    "namespace",
    "select",
    "subject",
    "errorContains",
    "filter",
    "receivedAfter",
    "receivedBefore",
    "order",
    "reason",
];

/// Those that are numbers.
const NUMBERS: [&str; 3] = ["httpStatus", "ratePerSecond", "maxDeliveries"];

/// Those that are lists, separated by commas.
const LISTS: [&str; 3] = ["destinations", "eventTypes", "eventIds"];

#[derive(Template)]
#[template(path = "console/new_replay.html")]
struct NewReplayPage {
    shell: Shell,
    query: ListQuery,
    integrations: KnownIntegrations,
    estimate: Option<EstimateView>,
    problem: Option<String>,
}

impl NewReplayPage {
    /// The fields that are sent again to start what was counted.
    fn fields(&self) -> Vec<(&'static str, &str)> {
        let names = TEXTS.into_iter().chain(NUMBERS).chain(LISTS);
        names.map(|name| (name, self.query.get(name))).filter(|(_, value)| !value.is_empty()).collect()
    }

    /// What would happen, as a sentence.
    fn sentence(&self, estimate: &EstimateView) -> String {
        let at_least = at_least(estimate.is_exact);
        let matched = show::number(estimate.matched);
        let plural = if estimate.matched == 1 { "delivery" } else { "deliveries" };
        if estimate.matched == 0 {
            return "Nothing matches: there is nothing to deliver again.".to_owned();
        }
        let mut text = format!("{at_least}{matched} {plural} would be made again");
        let counted = |one: &&crate::management::EstimatedDestinationView| one.matched > 0;
        let parts: Vec<String> = estimate
            .destinations
            .iter()
            .filter(counted)
            .map(|one| format!("{} to {}", show::number(one.matched), show::text(&one.name, 63)))
            .collect();
        text += &format!(": {}", parts.join(", "));
        if let (Some(oldest), Some(newest)) = (&estimate.oldest, &estimate.newest) {
            text += &format!(", received from {oldest} to {newest}");
        }
        let seconds = i64::try_from(estimate.duration_seconds).unwrap_or(i64::MAX);
        text += &format!(
            ". At this rate that takes {} or longer.",
            show::span(SignedDuration::from_secs(seconds))
        );
        text
    }
}

/// Shows the form and, once it says what to replay and why, what that would do.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let query = match ListQuery::read(&visitor, PATH, raw.as_deref()) {
        Ok(query) => query,
        Err(redirect) => return Ok(*redirect),
    };
    let counted = if query.get("reason").is_empty() {
        Ok(None)
    } else {
        let mut body = body(|name| query.get(name));
        body.insert("dryRun".to_owned(), true.into());
        as_problem(visitor.operator.start_replay(body).await)?.map(Some)
    };
    let (begun, problem) = match counted {
        Ok(begun) => (begun, None),
        Err(problem) => (None, Some(problem)),
    };
    let estimate = match begun {
        Some(Begun::Counted(estimate)) => Some(estimate),
        _ => None,
    };
    answer(&visitor, query, estimate, problem).await
}

/// Starts the replay, and leads to it.
pub(in crate::console) async fn start(visitor: Visitor, fields: Fields) -> Outcome {
    let mut body = body(|name| fields.get(name).unwrap_or_default());
    if let Some(expected) = fields.get("expectedCount") {
        body.insert("expectedCount".to_owned(), number(expected));
    }
    body.insert("requestedBy".to_owned(), "console".into());
    match as_problem(visitor.operator.start_replay(body).await)? {
        Ok(Begun::Started(replay)) => Ok(visitor.go(&format!("/replays/{}", replay.id))),
        Ok(Begun::Counted(_)) => Err(ApiError::internal().into()),
        Err(problem) => answer(&visitor, ListQuery::default(), None, Some(problem)).await,
    }
}

async fn answer(
    visitor: &Visitor,
    query: ListQuery,
    estimate: Option<EstimateView>,
    problem: Option<String>,
) -> Outcome {
    let page = NewReplayPage {
        shell: Shell::new(visitor, Section::Replays),
        integrations: KnownIntegrations::read(visitor).await?,
        query,
        estimate,
        problem,
    };
    Ok(visitor.page(&page))
}

/// Returns the body of the API, from the fields of a form.
fn body<'a>(field: impl Fn(&'static str) -> &'a str) -> Map<String, Value> {
    let given = |name: &'static str| (name, field(name));
    let texts = TEXTS.into_iter().map(given).map(|(name, value)| (name, value, Value::from(value)));
    let numbers = NUMBERS.into_iter().map(given).map(|(name, value)| (name, value, number(value)));
    let lists = LISTS.into_iter().map(given).map(|(name, value)| {
        let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
        (name, value, items.collect::<Vec<_>>().into())
    });
    let members = texts.chain(numbers).chain(lists).filter(|(_, value, _)| !value.is_empty());
    members.map(|(name, _, value)| (name.to_owned(), value)).collect()
}

/// Returns a number; what is none stays a text, which the API refuses with the name of its field.
pub(super) fn number(text: &str) -> Value {
    text.trim().parse::<u64>().map_or_else(|_| text.into(), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_the_body_of_the_api() {
        let fields = [
            ("integration", "shop/orders"),
            ("select", "Failed"),
            ("destinations", "a, b ,"),
            ("ratePerSecond", "20"),
            ("httpStatus", "many"),
            ("reason", "because"),
            ("unknown", "x"),
        ];
        let body =
            body(|name| fields.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value));
        let expected = serde_json::json!({
            "integration": "shop/orders", "select": "Failed", "destinations": ["a", "b"], "ratePerSecond": 20,
            "httpStatus": "many", "reason": "because",
        });
        assert_eq!(Value::Object(body), expected);
    }
}
