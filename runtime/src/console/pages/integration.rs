//! One Integration: where its webhooks go and how that works now, how it was, what its controller reports, what was refused, and its object.

use askama::Template;
use axum::extract::{Path, RawQuery};
use serde_json::json;
use uuid::Uuid;

use super::super::Outcome;
use super::super::readiness::{self, Readiness};
use super::super::shell::{Section, Shell};
use super::super::show::{self, Badge};
use super::super::svg::{Chart, Line};
use super::super::visitor::Visitor;
use crate::http::envelope::{ApiError, ErrorCode};
use crate::management::model::{
    DestinationStatsView, IntegrationStateView, IntegrationStatsView, IntegrationView, Rfc3339Millis,
    ScalingChangeView,
};
use crate::management::{IntegrationHealth, Series, SeriesWindow};
use crate::rejections::Rejection;

mod conditions;

use self::conditions::{ShownCondition, shown_conditions};

/// Refused webhooks that are shown here.
const REJECTIONS: usize = 5;

#[derive(Template)]
#[template(path = "console/integration.html", blocks = ["live"])]
struct IntegrationPage {
    shell: Shell,
    integration: IntegrationView,
    generation: i64,
    /// The generation that was reported, where it is another one.
    reported_generation: Option<i64>,
    /// `None`: not reported.
    ready: Option<Readiness>,
    /// When the controller reported last, if that is long ago.
    stale_since: Option<Rfc3339Millis>,
    /// `None`: not reported.
    conditions: Option<Vec<ShownCondition>>,
    workers: String,
    last_scaling: Option<ScalingChangeView>,
    window: SeriesWindow,
    stats: IntegrationStatsView,
    flow: Vec<FlowDestination>,
    may_replay: bool,
    /// Refused webhooks, if the visitor may see them.
    rejections: Option<Vec<Rejection>>,
    knows_rejections: bool,
    yaml: String,
    /// What a link to lists begins with, after the name of the list.
    query: String,
    charts: Vec<TitledChart>,
}

#[derive(Template)]
#[template(path = "console/charts.html")]
struct ChartsPart {
    shell: Shell,
    id: Uuid,
    window: SeriesWindow,
    charts: Vec<TitledChart>,
}

struct TitledChart {
    title: &'static str,
    chart: Chart,
    /// What is said where there is nothing to draw.
    nothing: &'static str,
}

/// A destination in the picture of the flow.
struct FlowDestination {
    name: String,
    url: String,
    badge: Badge,
    /// Of the last hour; `None`: nothing was sent.
    stats: Option<DestinationStatsView>,
    delivered: String,
    rate: String,
    /// The form of a replay of what failed, below the root.
    replay: String,
}

impl IntegrationPage {
    fn chart_id(&self) -> Uuid {
        self.integration.id
    }
}

impl ChartsPart {
    fn chart_id(&self) -> Uuid {
        self.id
    }
}

/// Shows the page.
pub(in crate::console) async fn page(
    visitor: Visitor,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
) -> Outcome {
    let (id, window) = (parse_id(&id)?, window(raw.as_deref())?);
    let (record, spec) = visitor.operator.integration(id).await?;
    let integration = record.integration;
    let stats = visitor.operator.stats(id, "window=1h").await?;
    // Who may see this one by its name alone has no list.
    let recent = visitor.overview().await.ok();
    let recent = recent.as_ref().and_then(|all| all.iter().find(|health| health.integration.id == id));
    let flow = flow(&integration, &stats, recent);
    let may_replay = visitor.rights.replaying && visitor.operator.may_replay(id).await?;
    // A live part has neither; the page has both.
    let is_whole = !visitor.view.is_fragment;
    let rejections = if is_whole { rejections(&visitor, &integration.route).await? } else { None };
    let charts = if is_whole { charts_of(&visitor.operator.series(id, window).await?) } else { Vec::new() };
    let manifest = json!({
        "apiVersion": "grapnel.dev/v1alpha1",
        "kind": "Integration",
        "metadata": {"name": integration.name, "namespace": integration.namespace},
        "spec": spec,
    });
    let page = IntegrationPage {
        shell: Shell::new(&visitor, Section::Overview),
        generation: record.generation,
        reported_generation: record.observed_generation.filter(|observed| *observed != record.generation),
        ready: Readiness::of(&integration.status),
        stale_since: readiness::stale_since(std::iter::once(&integration.status)),
        conditions: record.conditions.map(shown_conditions),
        workers: readiness::workers(&integration.status),
        last_scaling: record.last_scaling,
        window,
        flow,
        may_replay,
        knows_rejections: rejections.as_ref().is_some_and(|(_, is_known)| *is_known),
        rejections: rejections.map(|(rejections, _)| rejections),
        yaml: serde_saphyr::to_string(&manifest).unwrap_or_default(),
        query: format!("integration={id}"),
        charts,
        stats,
        integration,
    };
    Ok(visitor.answer(&page, &page.as_live()))
}

/// Shows the charts alone, which change slowly.
pub(in crate::console) async fn charts(
    visitor: Visitor,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
) -> Outcome {
    let (id, window) = (parse_id(&id)?, window(raw.as_deref())?);
    if !visitor.view.is_fragment {
        return Ok(visitor.go(&format!("/integrations/{id}?window={}", window.name())));
    }
    let charts = charts_of(&visitor.operator.series(id, window).await?);
    Ok(visitor.page(&ChartsPart { shell: Shell::new(&visitor, Section::Overview), id, window, charts }))
}

fn parse_id(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::new(ErrorCode::NotFound, "There is no such integration"))
}

fn window(raw: Option<&str>) -> Result<SeriesWindow, ApiError> {
    let mut pairs = url::form_urlencoded::parse(raw.unwrap_or_default().as_bytes());
    match pairs.find(|(name, _)| name == "window") {
        None => Ok(SeriesWindow::Day),
        Some((_, value)) => SeriesWindow::parse(&value)
            .ok_or_else(|| ApiError::invalid("window", "must be one of 1h, 24h, 7d")),
    }
}

/// Reads the last refused webhooks; `None`: the visitor may not see them. With whether they are known at all.
async fn rejections(visitor: &Visitor, route: &str) -> Result<Option<(Vec<Rejection>, bool)>, ApiError> {
    match visitor.operator.rejections(route).await {
        Ok((mut rejections, meta)) => {
            rejections.truncate(REJECTIONS);
            Ok(Some((rejections, meta.available)))
        }
        Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::Forbidden) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts the destinations of the object together with what was counted of them. `recent`: the last ten minutes, if the visitor may see them.
fn flow(
    integration: &IntegrationView,
    stats: &IntegrationStatsView,
    recent: Option<&IntegrationHealth>,
) -> Vec<FlowDestination> {
    let hour = jiff::SignedDuration::from_hours(1);
    let destinations = integration.destinations.iter().map(|destination| {
        let counted = stats.destinations.iter().find(|counted| counted.name == destination.name);
        let delivery = counted.map(|counted| &counted.delivery);
        let (delivered, failed) = delivery.map_or((0, 0), |delivery| (delivery.delivered, delivery.failed));
        let failures = failed + delivery.map_or(0, |delivery| delivery.retrying);
        // Lately, rather than in the hour: what has recovered fails no longer.
        let recent = recent.map(|health| health.destinations.iter().find(|one| one.name == destination.name));
        let (failures, successes) = match recent {
            None => (failures, delivered),
            Some(None) => (0, delivered),
            Some(Some(lately)) if lately.is_failing() => (lately.recent.failed + lately.recent.retrying, 0),
            Some(Some(lately)) => (lately.recent.failed + lately.recent.retrying, delivered),
        };
        FlowDestination {
            name: destination.name.clone(),
            url: destination.url.clone(),
            badge: badge(&integration.state, failures, successes),
            delivered: show::percent(delivered, delivered + failed),
            rate: show::rate(delivered, hour),
            replay: super::replay_of_failed(integration, &destination.name),
            stats: counted.cloned(),
        }
    });
    destinations.collect()
}

/// The state of a destination in a word.
fn badge(state: &IntegrationStateView, failures: i64, successes: i64) -> Badge {
    match (state, failures, successes) {
        (IntegrationStateView::DeliveryPaused | IntegrationStateView::Disabled, ..) => {
            Badge::new("off", "paused")
        }
        (_, 0, 0) => Badge::new("off", "idle"),
        (_, 0, _) => Badge::new("ok", "delivering"),
        (_, failures, successes) if failures >= successes => Badge::new("bad", "failing"),
        _ => Badge::new("wait", "some fail"),
    }
}

fn charts_of(series: &Series) -> Vec<TitledChart> {
    let some = |values: &[i64]| values.iter().map(|value| Some(*value as f64)).collect();
    let reported =
        |values: &[Option<i64>]| values.iter().map(|value| value.map(|value| value as f64)).collect();
    let line = |name, class, values| Line { name, class, values };
    let chart = |title, unit, lines| TitledChart {
        title,
        chart: Chart { from: series.from.0, part: series.part, unit, lines },
        nothing: "Nothing in this window.",
    };
    let chart_of_reports = |title, lines: Vec<Line>| {
        let is_reported = lines.iter().flat_map(|line| &line.values).any(Option::is_some);
        let shown = chart(title, "", lines);
        if is_reported { shown } else { TitledChart { nothing: "Not reported in this window.", ..shown } }
    };
    vec![
        chart(
            "Accepted and delivered",
            "",
            vec![line("accepted", 1, some(&series.accepted)), line("delivered", 2, some(&series.delivered))],
        ),
        chart(
            "Failed for good and refused",
            "",
            vec![line("failed", 3, some(&series.failed)), line("refused", 2, some(&series.refused))],
        ),
        chart(
            "Duration of attempts",
            "ms",
            vec![
                line("p50", 1, series.p50.clone()),
                line("p95", 2, series.p95.clone()),
                line("p99", 3, series.p99.clone()),
            ],
        ),
        chart_of_reports(
            "Backlog of the queues",
            vec![line("queued deliveries", 1, reported(&series.queued))],
        ),
        chart_of_reports(
            "Workers",
            vec![
                line("asked for", 2, reported(&series.workers_desired)),
                line("ready", 1, reported(&series.workers_ready)),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_called_by_what_holds_now() {
        let word = |state: IntegrationStateView, failures, successes| badge(&state, failures, successes).word;
        use IntegrationStateView::{Active, DeliveryPaused, Disabled, Draining};
        assert_eq!(word(Active, 0, 0), "idle");
        assert_eq!(word(Active, 0, 9), "delivering");
        assert_eq!(word(Active, 1, 9), "some fail");
        assert_eq!(word(Active, 9, 9), "failing");
        assert_eq!(word(Draining, 9, 0), "failing");
        assert_eq!(word(DeliveryPaused, 9, 0), "paused");
        assert_eq!(word(Disabled, 0, 0), "paused");
    }
}
