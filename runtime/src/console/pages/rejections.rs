//! The webhooks that a route refused last, and at which step.

use askama::Template;
use axum::extract::RawQuery;

use super::known_integrations::{Known, KnownIntegrations};
use super::list_query::ListQuery;
use crate::console::Outcome;
use crate::console::shell::{Section, Shell};
use crate::console::show;
use crate::console::visitor::Visitor;
use crate::management::model::Rfc3339Millis;
use crate::rejections::Rejection;

const PATH: &str = "/rejections";

#[derive(Template)]
#[template(path = "console/rejections.html", blocks = ["live"])]
struct RejectionsPage {
    shell: Shell,
    integrations: KnownIntegrations,
    /// The Integration whose route is shown.
    shown: Option<Known>,
    route: String,
    rejections: Vec<Rejection>,
    /// Whether it is known which webhooks were refused.
    is_available: bool,
}

/// Shows the page of the route in the query, or lets one be chosen.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    let query = match ListQuery::read(&visitor, PATH, raw.as_deref()) {
        Ok(query) => query,
        Err(redirect) => return Ok(*redirect),
    };
    let integrations = KnownIntegrations::read(&visitor).await?;
    let route = query.get("route").to_owned();
    let (rejections, is_available) = if route.is_empty() {
        (Vec::new(), true)
    } else {
        let (rejections, meta) = visitor.operator.rejections(&route).await?;
        (rejections, meta.available)
    };
    let page = RejectionsPage {
        shell: Shell::new(&visitor, Section::Rejections),
        shown: integrations.all.iter().find(|known| known.route == route).cloned(),
        integrations,
        route,
        rejections,
        is_available,
    };
    Ok(visitor.answer(&page, &page.as_live()))
}

/// Returns when a webhook was refused.
pub(super) fn time_of(rejection: &Rejection) -> Option<Rfc3339Millis> {
    rejection.at.parse().ok().map(Rfc3339Millis)
}

fn length(length: &u64) -> String {
    show::bytes(usize::try_from(*length).unwrap_or(usize::MAX))
}

fn names(rejection: &Rejection) -> String {
    show::text(&rejection.header_names.join(" "), 600)
}

/// Returns what usually causes a refusal at a step, and what to do.
fn advice(rejection: &Rejection) -> &'static str {
    match rejection.outcome.as_str() {
        "unauthorized" => {
            "Another secret, a changed body, or a clock that is off: Tools, Verify shows which step fails."
        }
        "too_large" => "Raise ingress.maxBodyBytes, or have the provider send less.",
        "rate_limited" => "Raise ingress.rateLimitPerMinute, if this is the provider.",
        "unsupported_media_type" => "mapping.accept and the content-encoding say which bodies are taken.",
        "malformed" => {
            "The body, or a field of it that the mapping requires, is not what the Integration says."
        }
        "error" => "ingress.methods says which methods are taken.",
        "loop" => "A destination leads back to this route.",
        "unknown_route" => "The Integration was disabled, or was not there yet.",
        "unavailable" => "Grapnel was too busy or had lost a dependency; the provider tries again.",
        _ => "",
    }
}
