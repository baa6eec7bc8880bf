//! Whether the process and its datastores are well.
//!
//! `/health` is public and tells of the datastores. `/livez` and `/readyz` are for the kubelet: live means that the
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

use crate::http::envelope::success;
use crate::rate_limit::RateLimiter;
use grapnel_platform::queue::QueueConnection;

/// A datastore that does not answer within this is not well.
const DEADLINE: Duration = Duration::from_secs(3);

/// An answer is used again for this long: the route is public, and must not become a load on the datastores.
const REUSE: Duration = Duration::from_secs(1);

/// The datastores as `/health` looks at them.
#[derive(Debug)]
pub struct Health {
    db: Database,
    rate_limiter: RateLimiter,
    rabbitmq: QueueConnection,
    last: Mutex<Option<(Instant, Report)>>,
}

/// `data` of `/health`.
#[derive(Debug, Clone, Serialize)]
struct Report {
    status: &'static str,
    timestamp: String,
    checks: Checks,
}

#[derive(Debug, Clone, Serialize)]
struct Checks {
    postgres: Check,
    redis: Check,
    rabbitmq: Check,
}

#[derive(Debug, Clone, Serialize)]
struct Check {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

impl Health {
    pub fn new(db: Database, rate_limiter: RateLimiter, rabbitmq: QueueConnection) -> Self {
        Self { db, rate_limiter, rabbitmq, last: Mutex::new(None) }
    }

    async fn report(&self) -> Report {
        // Held while the datastores are asked, so that many callers ask them once.
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
        let well = [&postgres, &redis, &rabbitmq].iter().all(|check| check.status == "ok");
        let report = Report {
            status: if well { "ok" } else { "degraded" },
            timestamp: format!("{:.3}", Timestamp::now()),
            checks: Checks { postgres, redis, rabbitmq },
        };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

/// The detail says only that a datastore is away: the route is public.
async fn check(answers: impl Future<Output = bool>) -> Check {
    match timeout(DEADLINE, answers).await {
        Ok(true) => Check { status: "ok", detail: None },
        Ok(false) => Check { status: "error", detail: Some("cannot be reached") },
        Err(_) => Check { status: "error", detail: Some("did not answer in time") },
    }
}

/// `GET /api/v1/health`: 200 when all datastores are well, else 503, in the success envelope either way.
pub async fn health(State(health): State<Arc<Health>>) -> Response {
    let report = health.report().await;
    let status = if report.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    success(status, &report)
}
