//! The last webhooks that were refused, of each integration, for whoever sets a provider up: when, from where, at which step and why. Names of headers
//! and sizes, and never a body or a value.
//!
//! They are in Redis, which every api shares, and only of routes that exist, so that strangers fill nothing. A refusal waits for nothing: what exceeds
//! the rate of an integration, or what Redis does not take, is not noted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use grapnel_core::ids::IntegrationId;
use http::header;
use http::request::Parts;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::rate_limit::redis_connection::RedisConnection;

/// Refusals that are kept of an integration.
const KEPT: i64 = 100;

/// How long they are kept after the last one.
const KEPT_SECONDS: i64 = 7 * 24 * 3600;

/// Refusals that a process notes of an integration in a second.
const PER_SECOND: u32 = 10;

/// Refusals that wait to be written, and those that are written at once.
const CAPACITY: usize = 1_024;
const BATCH: usize = 64;

/// Names of headers that are noted of a request, and characters of each.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_CHARS: usize = 64;

/// Redis must answer within this.
const DEADLINE: Duration = Duration::from_millis(500);

/// How long Redis is not called after it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A webhook that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// When it was refused.
    #[schema(format = DateTime)]
    pub at: String,
    /// The address that it came from.
    pub client_ip: String,
    pub method: String,
    /// The step that refused it, as the label `outcome` of the metric `grapnel_webhooks_total`, such as `unauthorized`.
    pub outcome: String,
    /// Why, for people.
    pub reason: String,
    /// The names of its headers, each once, at most 64.
    pub header_names: Vec<String>,
    /// The bytes of its body as announced by its content-length.
    #[schema(required)]
    pub content_length: Option<u64>,
}

impl Rejection {
    /// Describes a request that is refused now.
    pub(crate) fn new(parts: &Parts, client_ip: IpAddr, outcome: &str, reason: String) -> Self {
        let names = parts.headers.keys().take(MAX_HEADERS);
        let length = parts.headers.get(header::CONTENT_LENGTH);
        Self {
            at: format!("{:.3}", Timestamp::now()),
            client_ip: client_ip.to_string(),
            method: parts.method.to_string(),
            outcome: outcome.to_owned(),
            reason,
            header_names: names.map(|name| name.as_str().chars().take(MAX_HEADER_CHARS).collect()).collect(),
            content_length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
        }
    }
}

/// A handle that notes refusals and reads them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rejections {
    notes: mpsc::Sender<(IntegrationId, Rejection)>,
    noted: Arc<Mutex<NotedNow>>,
    redis: RedisConnection,
    prefix: Arc<str>,
}

/// What was noted in the current second.
#[derive(Debug, Default)]
struct NotedNow {
    second: i64,
    by_integration: HashMap<IntegrationId, u32>,
}

/// The task behind [`Rejections`].
#[derive(Debug)]
pub struct RejectionTask {
    notes: mpsc::Receiver<(IntegrationId, Rejection)>,
    redis: RedisConnection,
    prefix: Arc<str>,
}

/// Returns a handle and the task that must run for it. `prefix` keeps installations that share a Redis apart, like their queues.
///
/// # Errors
/// Not a Redis URL.
pub fn new(url: &SecretString, prefix: &str) -> anyhow::Result<(Rejections, RejectionTask)> {
    let redis = RedisConnection::new(url, DEADLINE)?;
    let (sender, notes) = mpsc::channel(CAPACITY);
    let prefix: Arc<str> = prefix.into();
    let rejections = Rejections {
        notes: sender,
        noted: Arc::default(),
        redis: redis.clone(),
        prefix: Arc::clone(&prefix),
    };
    Ok((rejections, RejectionTask { notes, redis, prefix }))
}

impl Rejections {
    /// Returns a handle for reading alone: what it is to note is noted nowhere.
    ///
    /// # Errors
    /// Not a Redis URL.
    pub(crate) fn reader(url: &SecretString, prefix: &str) -> anyhow::Result<Self> {
        Ok(new(url, prefix)?.0)
    }

    /// Notes a refusal, unless there were too many in this second.
    pub(crate) fn note(&self, integration_id: IntegrationId, rejection: impl FnOnce() -> Rejection) {
        if self.is_within_rate(integration_id, Timestamp::now().as_second())
            && self.notes.try_send((integration_id, rejection())).is_err()
        {
            tracing::debug!("a refusal is not noted: too many wait to be written");
        }
    }

    fn is_within_rate(&self, integration_id: IntegrationId, second: i64) -> bool {
        // Nothing panics while this is held.
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.second != second {
            noted.second = second;
            noted.by_integration.clear();
        }
        let count = noted.by_integration.entry(integration_id).or_default();
        *count += 1;
        *count <= PER_SECOND
    }

    /// Reads the last refusals of an integration, the latest first; `None` while Redis is unavailable.
    pub(crate) async fn read(&self, integration_id: IntegrationId) -> Option<Vec<Rejection>> {
        let read = async {
            let mut connection = self.redis.connection().await?;
            redis::cmd("LRANGE")
                .arg(key(&self.prefix, integration_id))
                .arg(0)
                .arg(KEPT - 1)
                .query_async::<Vec<String>>(&mut connection)
                .await
        };
        match timeout(DEADLINE * 2, read).await {
            // What another version wrote may be something else.
            Ok(Ok(texts)) => Some(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect()),
            Ok(Err(_)) | Err(_) => {
                self.redis.reset();
                None
            }
        }
    }
}

fn key(prefix: &str, integration_id: IntegrationId) -> String {
    format!("grapnel:rejections:{prefix}{integration_id}")
}

impl RejectionTask {
    /// Writes refusals until the token is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let received = stop.run_until_cancelled(self.notes.recv_many(&mut batch, BATCH)).await;
            if received.is_none_or(|count| count == 0) {
                return;
            }
            if !self.write(batch.drain(..)).await {
                self.redis.reset();
                let _stopped = stop.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
    }

    async fn write(&self, rejections: impl Iterator<Item = (IntegrationId, Rejection)>) -> bool {
        let mut pipeline = redis::pipe();
        for (integration_id, rejection) in rejections {
            let Ok(text) = serde_json::to_string(&rejection) else { continue };
            let key = key(&self.prefix, integration_id);
            pipeline.cmd("LPUSH").arg(&key).arg(text).ignore();
            pipeline.cmd("LTRIM").arg(&key).arg(0).arg(KEPT - 1).ignore();
            pipeline.cmd("EXPIRE").arg(&key).arg(KEPT_SECONDS).ignore();
        }
        let write = async {
            let mut connection = self.redis.connection().await?;
            pipeline.query_async::<()>(&mut connection).await
        };
        matches!(timeout(DEADLINE * 2, write).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integration_has_so_many_in_a_second() {
        let (rejections, _task) = new(&SecretString::from("redis://127.0.0.1:1"), "test.").unwrap();
        let (one, other) = (IntegrationId::new(uuid::Uuid::nil()), IntegrationId::new(uuid::Uuid::max()));
        let noted = |id, second| (0..50).filter(|_| rejections.is_within_rate(id, second)).count();
        assert_eq!(noted(one, 7), 10);
        assert_eq!(noted(other, 7), 10);
        assert_eq!(noted(one, 7), 0);
        assert_eq!(noted(one, 8), 10);
    }
}
