//! The management API, as the load generator uses it: `/replays`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{ReplayConfig, ReplayLimits};
use crate::config::Target;
use crate::connection::Connection;

const CALL_LIMIT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The management API under a base URL.
pub(super) struct ManagementApi<'a> {
    pub(super) base: &'a Target,
    pub(super) key: &'a SecretString,
}

/// A replay, as the API has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Replay {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) state_reason: Option<String>,
    pub(super) counters: Counters,
}

/// The counters of a replay, in deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// What it selects.
    pub matched: u64,
    /// Made due again.
    pub fed: u64,
    /// Of these, delivered.
    pub succeeded: u64,
    /// Of these, failed again.
    pub failed: u64,
    /// Left out.
    pub skipped: Skipped,
}

/// What a replay left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// All of it, whatever the cause.
    pub total: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Estimate {
    matched: u64,
    is_exact: bool,
}

/// Why a call has no result.
enum CallFailure {
    /// The API is away, which a run may cause on purpose.
    Away(anyhow::Error),
    /// It refused the call.
    Refused(anyhow::Error),
}

impl From<CallFailure> for anyhow::Error {
    fn from(failure: CallFailure) -> anyhow::Error {
        match failure {
            CallFailure::Away(error) | CallFailure::Refused(error) => error,
        }
    }
}

impl ManagementApi<'_> {
    /// Waits until a dry run counts as many failed deliveries as are expected.
    pub(super) async fn wait_until_failed(
        &self,
        config: &ReplayConfig,
        received_after: &str,
        expected: u64,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut body = selection(config, received_after);
        body["dryRun"] = json!(true);
        loop {
            let estimate: Estimate = self.call(Method::POST, "/replays", Some(&body)).await?;
            ensure!(
                estimate.matched <= expected,
                "{} deliveries have failed, and {expected} are of this run: use an Integration of its own, and name its destinations",
                estimate.matched
            );
            if estimate.is_exact && estimate.matched == expected {
                return Ok(());
            }
            ensure!(
                started.elapsed() < limit,
                "{} of {expected} deliveries have failed for good after {} s: let the destinations give up sooner (retry.maxAttempts)",
                estimate.matched,
                limit.as_secs()
            );
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Starts a replay of everything that has failed, and returns its id.
    pub(super) async fn start(
        &self,
        config: &ReplayConfig,
        received_after: &str,
        expected: u64,
    ) -> anyhow::Result<String> {
        let mut body = selection(config, received_after);
        body["ratePerSecond"] = json!(config.rate_per_second);
        body["maxDeliveries"] = json!(expected);
        body["expectedCount"] = json!(expected);
        let replay: Replay = self.call(Method::POST, "/replays", Some(&body)).await?;
        Ok(replay.id)
    }

    /// Waits for the end of a replay, and returns it as it is then. One that has paused itself has ended, too: nobody resumes it here.
    pub(super) async fn follow(&self, id: &str, limits: &ReplayLimits) -> anyhow::Result<Replay> {
        let (started, mut answered) = (Instant::now(), Instant::now());
        loop {
            match self.call::<Replay>(Method::GET, &format!("/replays/{id}"), None).await {
                Ok(replay) => {
                    answered = Instant::now();
                    let has_ended = match replay.state.as_str() {
                        "Completed" | "Cancelled" | "Failed" => true,
                        "Paused" => replay.state_reason.is_some(),
                        _ => false,
                    };
                    if has_ended {
                        return Ok(replay);
                    }
                    ensure!(
                        started.elapsed() < limits.replay,
                        "the replay {id} is {} after {} s: {:?}",
                        replay.state,
                        limits.replay.as_secs(),
                        replay.counters
                    );
                }
                Err(CallFailure::Refused(error)) => return Err(error),
                Err(CallFailure::Away(error)) if answered.elapsed() >= limits.unreachable => {
                    return Err(error.context("follow the replay"));
                }
                Err(CallFailure::Away(_)) => {}
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Makes one call and returns the `data` of its answer.
    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, CallFailure> {
        let answered = timeout(CALL_LIMIT, self.exchange(&method, path, body)).await;
        let answered = answered.context("no answer in time").and_then(|answered| answered);
        let (status, text) =
            answered.with_context(|| format!("{method} {}{path}", self.base)).map_err(CallFailure::Away)?;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(CallFailure::Away(anyhow::anyhow!("{method} {path} was answered {status}")));
        }
        let read = || -> anyhow::Result<T> {
            let mut answer: Value = serde_json::from_slice(&text)
                .with_context(|| format!("{method} {path} was answered {status}, not in JSON"))?;
            if !status.is_success() {
                bail!("{method} {path} was answered {status}: {}", answer["error"]);
            }
            serde_json::from_value(answer["data"].take())
                .with_context(|| format!("read the answer to {method} {path}"))
        };
        read().map_err(CallFailure::Refused)
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base.path().path().trim_end_matches('/')))
            .header(header::HOST, self.base.host_header())
            .header("x-internal-api-key", self.key.expose_secret())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()))))
            .context("make the request")?;
        let mut connection = Connection::open(self.base).await?;
        let response = connection.send(request).await.ok().context("no answer")?;
        let status = response.status();
        let text = connection.read(response).await.context("the answer broke off")?;
        Ok((status, text))
    }
}

fn selection(config: &ReplayConfig, received_after: &str) -> Value {
    let mut body = json!({
        "integration": config.integration,
        "select": "Failed",
        "receivedAfter": received_after,
        "reason": "grapnel-loadtest: the end of an outage",
    });
    if !config.destinations.is_empty() {
        body["destinations"] = json!(config.destinations);
    }
    body
}
