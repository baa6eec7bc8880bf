//! The health of the process and its datastores.
//!
//! `/health` is public and reports the datastores. `/livez` and `/readyz` are for the kubelet: live means that the
//! process works, ready that it should get traffic. Neither depends on a datastore that the process survives without.

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

/// A datastore that does not answer within this is unhealthy.
const DEADLINE: Duration = Duration::from_secs(3);

/// The time for which an answer is reused: the route is public, and must not become a load on the datastores.
const REUSE: Duration = Duration::from_secs(1);

/// The datastores that `/health` checks.
#[derive(Debug)]
pub struct Health {
    db: Database,
    rate_limiter: RateLimiter,
    rabbitmq: QueueConnection,
    integrations: IntegrationCache,
    last: Mutex<Option<(Instant, HealthReport)>>,
}

/// `data` of a health check.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HealthReport {
    status: HealthStatus,
    timestamp: Rfc3339Millis,
    checks: HealthChecks,
    /// How many Integrations this process cannot use, and answers with 503: a sealing key is missing, or it is too old for
    /// them.
    unusable_integrations: usize,
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
    redis: HealthCheck,
    rabbitmq: HealthCheck,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct HealthCheck {
    status: CheckStatus,
    /// The problem, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CheckStatus {
    Ok,
    Error,
}

impl Health {
    pub(crate) fn new(
        db: Database,
        rate_limiter: RateLimiter,
        rabbitmq: QueueConnection,
        integrations: IntegrationCache,
    ) -> Self {
        Self { db, rate_limiter, rabbitmq, integrations, last: Mutex::new(None) }
    }

    async fn report(&self) -> HealthReport {
        // Held during the checks, so that many callers share one check.
        let mut last = self.last.lock().await;
        if let Some((asked, report)) = &*last
            && asked.elapsed() < REUSE
        {
            return report.clone();
        }
        let (postgres, redis, rabbitmq) = tokio::join!(
            check(async { self.db.ping().await.is_ok() }),
            check(async { self.rate_limiter.ping().await.is_ok() }),
            check(async { self.rabbitmq.check().await.is_ok() }),
        );
        let (unusable_integrations, serves_none) = {
            let integrations = self.integrations.load();
            (integrations.unusable(), integrations.why_none_is_usable().is_some())
        };
        let answering = [&postgres, &redis, &rabbitmq].iter().all(|check| check.status == CheckStatus::Ok);
        // One that cannot be used is its owner's trouble, and the others are served.
        let healthy = answering && !serves_none;
        let report = HealthReport {
            status: if healthy { HealthStatus::Ok } else { HealthStatus::Degraded },
            timestamp: Rfc3339Millis(Timestamp::now()),
            checks: HealthChecks { postgres, redis, rabbitmq },
            unusable_integrations,
        };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

/// Checks one datastore. The detail is kept vague because the route is public.
async fn check(answers: impl Future<Output = bool>) -> HealthCheck {
    match timeout(DEADLINE, answers).await {
        Ok(true) => HealthCheck { status: CheckStatus::Ok, detail: None },
        Ok(false) => HealthCheck { status: CheckStatus::Error, detail: Some("cannot be reached") },
        Err(_) => HealthCheck { status: CheckStatus::Error, detail: Some("did not answer in time") },
    }
}

/// `GET /api/v1/health`: 200 when all datastores are healthy, else 503, in the success envelope either way.
pub async fn health(State(health): State<Arc<Health>>) -> Response {
    let report = health.report().await;
    let status =
        if report.status == HealthStatus::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    success(status, &report)
}
