//! The first page: every Integration that the visitor may see, the worst first, and what needs attention.

use askama::Template;
use axum::extract::RawQuery;
use grapnel_store::views::TrafficPart;

use super::super::Outcome;
use super::super::readiness::{self, Readiness};
use super::super::shell::{Section, Shell};
use super::super::show::{self, Badge};
use super::super::svg::Sparkline;
use super::super::visitor::Visitor;
use crate::management::model::{IntegrationStateView, Rfc3339Millis};
use crate::management::{DestinationHealth, IntegrationHealth, RECENT};

/// Integrations on a page.
const PAGE: usize = 50;

/// What needs attention is listed up to this number.
const MAX_ATTENTION: usize = 8;

/// What waits longer than this, in seconds, needs attention.
const LONG_WAIT: i64 = 300;

/// Refused webhooks of ten minutes that need attention, unless many more were accepted.
const MANY_REFUSED: i64 = 5;

#[derive(Template)]
#[template(path = "console/overview.html", blocks = ["live"])]
struct OverviewPage {
    shell: Shell,
    /// The part of a name that is looked for.
    name: String,
    /// Whether there is any Integration at all.
    has_any: bool,
    total: Totals,
    /// When the controller reported last, if that is long ago.
    stale_since: Option<Rfc3339Millis>,
    attention: Vec<Attention>,
    more_attention: usize,
    rows: Vec<Row>,
    matching: usize,
    page: usize,
    /// The next page, below the root, or empty.
    next: String,
}

#[derive(Default)]
struct Totals {
    day: TrafficPart,
    backlog: i64,
    is_backlog_capped: bool,
    oldest: Option<Rfc3339Millis>,
}

struct Row {
    health: IntegrationHealth,
    badge: Badge,
    /// `None`: not reported.
    ready: Option<Readiness>,
    workers: String,
    spark: Sparkline,
    rate: String,
    delivered: String,
}

/// Something that needs attention.
struct Attention {
    badge: Badge,
    /// The class of the edge.
    edge: &'static str,
    integration: String,
    namespace: String,
    id: String,
    destination: String,
    text: String,
    /// Where to look, below the root.
    why: String,
    why_word: &'static str,
    /// The form of a replay of what failed, below the root; empty where there is nothing to replay.
    replay: String,
}

/// Shows the page.
pub(in crate::console) async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Outcome {
    // Who may see none, but something else, begins there.
    if !visitor.rights.integrations
        && let Some(path) = Shell::new(&visitor, Section::None).nav.first().map(|item| item.path)
    {
        return Ok(visitor.go(path));
    }
    let raw = raw.unwrap_or_default();
    let value = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(raw.as_bytes());
        pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    };
    let name = value("name").unwrap_or_default().trim().to_lowercase();
    let number = value("page").and_then(|page| page.parse().ok()).unwrap_or(1_usize).clamp(1, 1_000);
    let mut all = visitor.overview().await?;
    let (mut total, mut attention) = (Totals::default(), Vec::new());
    for health in &all {
        total.add(health);
        attention_of(health, visitor.rights.replaying, &mut attention);
    }
    attention.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let more_attention = attention.len().saturating_sub(MAX_ATTENTION);
    let has_any = !all.is_empty();
    let stale_since = readiness::stale_since(all.iter().map(|health| &health.integration.status));
    all.retain(|health| {
        let integration = &health.integration;
        name.is_empty() || format!("{}/{}", integration.namespace, integration.name).contains(&name)
    });
    all.sort_by_key(|health| (std::cmp::Reverse(trouble(health)), health.integration.name.clone()));
    let matching = all.len();
    let rows: Vec<Row> = all.into_iter().skip((number - 1) * PAGE).take(PAGE).map(Row::new).collect();
    let next = if number * PAGE < matching {
        let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        format!("/?name={name}&page={}", number + 1)
    } else {
        String::new()
    };
    let page = OverviewPage {
        shell: Shell::new(&visitor, Section::Overview),
        name,
        has_any,
        total,
        stale_since,
        attention: attention.into_iter().take(MAX_ATTENTION).map(|(_, item)| item).collect(),
        more_attention,
        rows,
        matching,
        page: number,
        next,
    };
    Ok(visitor.answer(&page, &page.as_live()))
}

impl Totals {
    fn add(&mut self, health: &IntegrationHealth) {
        self.day.accepted += health.day.accepted;
        self.day.delivered += health.day.delivered;
        self.day.failed += health.day.failed;
        self.day.refused += health.day.refused;
        self.backlog += health.backlog();
        self.is_backlog_capped |= health.is_backlog_capped();
        let oldest = [self.oldest, health.oldest()].into_iter().flatten().map(|time| time.0).min();
        self.oldest = oldest.map(Rfc3339Millis);
    }
}

impl Row {
    fn new(health: IntegrationHealth) -> Self {
        let label = format!(
            "{} accepted and {} failed for good in 24 hours",
            show::number(health.day.accepted),
            show::number(health.day.failed)
        );
        Self {
            badge: badge(&health),
            ready: Readiness::of(&health.integration.status),
            workers: readiness::workers(&health.integration.status),
            spark: Sparkline { label, values: health.accepted.clone(), failures: health.failed.clone() },
            rate: show::rate(health.recent.accepted, RECENT),
            delivered: show::percent(health.day.delivered, health.day.delivered + health.day.failed),
            health,
        }
    }
}

/// The state of an Integration in a word: what is wrong, else what it is set to.
fn badge(health: &IntegrationHealth) -> Badge {
    match health.integration.state {
        IntegrationStateView::Active if health.destinations.iter().any(DestinationHealth::is_failing) => {
            Badge::new("bad", "destination failing")
        }
        IntegrationStateView::Active if waits_long(health.oldest()) => Badge::new("wait", "falling behind"),
        IntegrationStateView::Active if is_refusing(health) => Badge::new("wait", "refusing"),
        state => state.into(),
    }
}

/// How bad it is, for the order.
fn trouble(health: &IntegrationHealth) -> u8 {
    let weight = |badge: Badge| match badge.tone {
        "bad" => 3,
        "wait" => 2,
        "off" => 1,
        _ => 0,
    };
    let ready = Readiness::of(&health.integration.status).map_or(0, |ready| weight(ready.badge));
    weight(badge(health)).max(ready)
}

fn waits_long(oldest: Option<Rfc3339Millis>) -> bool {
    oldest.is_some_and(|oldest| jiff::Timestamp::now().duration_since(oldest.0).as_secs() > LONG_WAIT)
}

fn is_refusing(health: &IntegrationHealth) -> bool {
    let recent = &health.recent;
    recent.refused >= MANY_REFUSED && recent.refused * 10 >= recent.accepted
}

/// Adds what needs attention, each with its weight.
fn attention_of(health: &IntegrationHealth, may_replay: bool, attention: &mut Vec<(i64, Attention)>) {
    let integration = &health.integration;
    let item = |badge: Badge, edge, destination: &str, text, why, why_word| Attention {
        badge,
        edge,
        integration: integration.name.clone(),
        namespace: integration.namespace.clone(),
        id: integration.id.to_string(),
        destination: destination.to_owned(),
        text,
        why,
        why_word,
        replay: String::new(),
    };
    if let Some(ready) = Readiness::of(&integration.status).filter(|ready| ready.needs_attention) {
        let (weight, edge) = if ready.badge.tone == "bad" { (2_000_000, "") } else { (50_000, "w") };
        let why = format!("/integrations/{}#conditions", integration.id);
        attention.push((weight, item(ready.badge, edge, "", not_ready_text(&ready), why, "See why")));
    }
    let is_active = matches!(integration.state, IntegrationStateView::Active);
    for destination in &health.destinations {
        if is_active && destination.is_failing() {
            let name: String = url::form_urlencoded::byte_serialize(destination.name.as_bytes()).collect();
            let why = format!("/deliveries?integration={}&destination={name}&status=failed", integration.id);
            let text = failing_text(destination);
            let weight = 1_000_000 + destination.backlog;
            let mut failing = item(Badge::new("bad", "failing"), "", &destination.name, text, why, "See why");
            if may_replay && destination.recent.failed > 0 {
                failing.replay = super::replay_of_failed(integration, &destination.name);
            }
            attention.push((weight, failing));
        } else if is_active && waits_long(destination.oldest) {
            let text = waiting_text(destination);
            let why = format!("/integrations/{}", integration.id);
            let weight = 100_000 + destination.backlog;
            attention.push((
                weight,
                item(Badge::new("wait", "behind"), "w", &destination.name, text, why, "Look"),
            ));
        }
    }
    if is_refusing(health) {
        let (refused, accepted) = (show::number(health.recent.refused), show::number(health.recent.accepted));
        let text = format!("{refused} webhooks refused and {accepted} accepted in ten minutes");
        let route: String = url::form_urlencoded::byte_serialize(integration.route.as_bytes()).collect();
        let why = format!("/rejections?route={route}");
        attention.push((
            10_000 + health.recent.refused,
            item(Badge::new("wait", "refusing"), "w", "", text, why, "See which"),
        ));
    }
    if !is_active && health.backlog() > 0 {
        let until = match integration.state {
            IntegrationStateView::Disabled => "while it is disabled",
            IntegrationStateView::Draining => "before it is removed",
            IntegrationStateView::DeliveryPaused | IntegrationStateView::Active => {
                "until delivery is resumed"
            }
        };
        let text = format!("{} deliveries wait {until}", show::number(health.backlog()));
        let why = format!("/integrations/{}", integration.id);
        attention.push((1, item(Badge::from(integration.state), "o", "", text, why, "Look")));
    }
}

fn not_ready_text(ready: &Readiness) -> String {
    let since = ready.since.as_ref().map(|since| format!(", for {}", show::age(since)));
    let message = if ready.message.is_empty() { String::new() } else { format!(": {}", ready.message) };
    format!("{}{}{message}", ready.reason, since.unwrap_or_default())
}

fn failing_text(destination: &DestinationHealth) -> String {
    let failures = destination.recent.failed + destination.recent.retrying;
    let mut text = match &destination.last_failure {
        Some(failure) => match failure.http_status {
            Some(status) => format!("{status}, last {}", show::ago(&failure.at)),
            None => format!("{}, last {}", show::text(&failure.error, 120), show::ago(&failure.at)),
        },
        None => "attempts fail".to_owned(),
    };
    text.push_str(&format!(
        "; {} of {} attempts failed in ten minutes",
        show::number(failures),
        show::number(failures + destination.recent.delivered)
    ));
    if destination.backlog > 0 {
        text.push_str(&format!(", {}", waiting_text(destination)));
    }
    text
}

fn waiting_text(destination: &DestinationHealth) -> String {
    let more = if destination.is_backlog_capped() { " or more" } else { "" };
    let oldest = destination.oldest.as_ref().map(|oldest| format!(", the oldest for {}", show::age(oldest)));
    format!("{}{more} deliveries wait{}", show::number(destination.backlog), oldest.unwrap_or_default())
}
