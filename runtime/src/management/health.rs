//! The health of the process and its datastores.
//!
//! `/health` is public and reports the datastores. `/livez` and `/readyz` are for the kubelet: live means that the
//! process works, ready that it should get traffic. Neither depends on a datastore that the process survives without.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use grapnel_store::Database;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::model::Rfc3339Millis;
use crate::http::envelope::success;
use crate::integrations::cache::IntegrationCache;
use crate::rate_limit::RateLimiter;
use grapnel_platform::queue::QueueConnection;
use grapnel_platform::queue::publish::Publisher;

/// A datastore that does not answer within this is unhealthy.
const DEADLINE: Duration = Duration::from_secs(3);

/// The time for which an answer is reused: the route is public, and must not become a load on the datastores.
const REUSE: Duration = Duration::from_secs(1);

const UNREACHABLE: &str = "cannot be reached";

/// What `/health` checks.
#[derive(Debug)]
pub struct Health {
    db: Database,
    ingest: Option<IngestHealth>,
    last: Mutex<Option<(Instant, HealthReport)>>,
}

/// What a process uses that accepts webhooks.
#[derive(Debug)]
pub(crate) struct IngestHealth {
    pub(crate) rate_limiter: RateLimiter,
    pub(crate) rabbitmq: QueueConnection,
    /// It is told when RabbitMQ takes no messages; a connection that does not publish is not.
    pub(crate) publisher: Publisher,
    pub(crate) integrations: IntegrationCache,
}

/// `data` of a health check.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HealthReport {
    status: HealthStatus,
    timestamp: Rfc3339Millis,
    checks: HealthChecks,
    /// How many Integrations this process cannot use, and answers with 503: a sealing key is missing, or it is too old for
    /// them. Absent where no webhooks are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unusable_integrations: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum HealthStatus {
    Ok,
    Degraded,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct HealthChecks {
    postgres: HealthCheck,
    /// Absent where no webhooks are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    redis: Option<HealthCheck>,
    /// Absent where no webhooks are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rabbitmq: Option<HealthCheck>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct HealthCheck {
    status: CheckStatus,
    /// The problem, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    detail: Option<Cow<'static, str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CheckStatus {
    Ok,
    /// RabbitMQ answers and takes no messages, because it lacks memory or disk space: deliveries wait in PostgreSQL.
    Blocked,
    Error,
}

impl Health {
    /// Checks PostgreSQL, and what a process needs that accepts webhooks, if this one does.
    pub(crate) fn new(db: Database, ingest: Option<IngestHealth>) -> Self {
        Self { db, ingest, last: Mutex::new(None) }
    }

    async fn report(&self) -> HealthReport {
        // Held during the checks, so that many callers share one check.
        let mut last = self.last.lock().await;
        if let Some((asked, report)) = &*last
            && asked.elapsed() < REUSE
        {
            return report.clone();
        }
        let postgres = check(async {
            self.db.ping().await.map_err(|error| match error {
                grapnel_store::Error::ReadOnly => "accepts no writes",
                _ => UNREACHABLE,
            })
        });
        let report = match &self.ingest {
            None => HealthReport::new(postgres.await, None),
            Some(ingest) => {
                let (postgres, (redis, rabbitmq)) = tokio::join!(postgres, ingest.check());
                HealthReport::new(postgres, Some((ingest, redis, rabbitmq)))
            }
        };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

impl HealthReport {
    fn new(postgres: HealthCheck, ingest: Option<(&IngestHealth, HealthCheck, HealthCheck)>) -> Self {
        // One that cannot be used is its owner's trouble, and the others are served.
        let (unusable_integrations, serves_none) = match ingest {
            None => (None, false),
            Some((IngestHealth { integrations, .. }, ..)) => {
                let integrations = integrations.load();
                (Some(integrations.unusable()), integrations.why_none_is_usable().is_some())
            }
        };
        let (redis, rabbitmq) = ingest.map(|(_, redis, rabbitmq)| (redis, rabbitmq)).unzip();
        let is_ok = |check: &HealthCheck| check.status == CheckStatus::Ok;
        let answering =
            is_ok(&postgres) && redis.as_ref().is_none_or(is_ok) && rabbitmq.as_ref().is_none_or(is_ok);
        Self {
            status: if answering && !serves_none { HealthStatus::Ok } else { HealthStatus::Degraded },
            timestamp: Rfc3339Millis(Timestamp::now()),
            checks: HealthChecks { postgres, redis, rabbitmq },
            unusable_integrations,
        }
    }
}

impl IngestHealth {
    /// Checks Redis and RabbitMQ.
    async fn check(&self) -> (HealthCheck, HealthCheck) {
        let (redis, rabbitmq) = tokio::join!(
            check(async { self.rate_limiter.ping().await.map_err(|_| UNREACHABLE) }),
            check(async { self.rabbitmq.check().await.map_err(|_| UNREACHABLE) }),
        );
        let rabbitmq = match self.publisher.blocked() {
            Some(reason) if rabbitmq.status == CheckStatus::Ok => {
                HealthCheck { status: CheckStatus::Blocked, detail: Some(reason.to_string().into()) }
            }
            _ => rabbitmq,
        };
        (redis, rabbitmq)
    }
}

/// Checks one datastore. The detail is kept vague because the route is public.
async fn check(answers: impl Future<Output = Result<(), &'static str>>) -> HealthCheck {
    match timeout(DEADLINE, answers).await {
        Ok(Ok(())) => HealthCheck { status: CheckStatus::Ok, detail: None },
        Ok(Err(problem)) => HealthCheck { status: CheckStatus::Error, detail: Some(problem.into()) },
        Err(_) => HealthCheck { status: CheckStatus::Error, detail: Some("did not answer in time".into()) },
    }
}

/// `GET /api/v1/health`: 200 when all datastores are healthy, else 503, in the success envelope either way.
pub async fn health(State(health): State<Arc<Health>>) -> Response {
    let report = health.report().await;
    let status =
        if report.status == HealthStatus::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    success(status, &report)
}
