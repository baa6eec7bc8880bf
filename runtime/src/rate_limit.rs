//! Rate limits, and the only module that uses Redis.
//!
//! A limit counts the requests to one integration from one source address in a clock minute, over all processes. Requests
//! that arrive during a call to Redis share the next one: one script call for many requests. Redis is not a source of
//! truth: while it is unavailable the same limits are counted in this process alone, and no webhook is refused because of
//! it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use redis::Script;
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

mod redis_connection;

use redis_connection::RedisConnection;

const WINDOW_SECONDS: i64 = 60;

/// Checks that may wait; a further request is allowed without being counted.
const CAPACITY: usize = 8_192;

/// Checks that share one script call.
const BATCH: usize = 512;

/// Redis must answer within this; otherwise the checks are counted in this process.
const DEADLINE: Duration = Duration::from_millis(250);

/// How long Redis is not called after it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Keys that are counted in this process while Redis is unavailable. When there are more, counting starts again: memory
/// matters more than the limit under a flood of addresses.
const LOCAL_KEYS: usize = 100_000;

/// Adds to each key, sets the expiry of a new one, and returns the sums.
const COUNT: &str = "
    local sums = {}
    for i, key in ipairs(KEYS) do
        local sum = redis.call('INCRBY', key, ARGV[i + 1])
        if sum == tonumber(ARGV[i + 1]) then redis.call('EXPIRE', key, ARGV[1]) end
        sums[i] = sum
    end
    return sums";

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// Over the limit until the next clock minute.
    Limited {
        retry_after_seconds: u64,
    },
}

/// A handle that counts requests against their limits.
#[derive(Debug, Clone)]
pub(crate) struct RateLimiter {
    checks: mpsc::Sender<PendingCheck>,
    redis: RedisConnection,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CounterKey {
    integration_id: IntegrationId,
    address: IpAddr,
    minute: i64,
}

#[derive(Debug)]
struct PendingCheck {
    key: CounterKey,
    /// Receives the position of the request in its window.
    reply: oneshot::Sender<u64>,
}

/// The task behind a [`RateLimiter`].
pub(crate) struct RateLimitTask {
    checks: mpsc::Receiver<PendingCheck>,
    redis: RedisConnection,
    script: Script,
    paused_until: Option<Instant>,
    local: HashMap<CounterKey, u64>,
    local_minute: i64,
}

/// Returns whether the text is a Redis URL.
pub(crate) fn is_url(text: &str) -> bool {
    redis::Client::open(text).is_ok()
}

/// Returns a rate limiter and the task that must run for it.
///
/// # Errors
/// Not a Redis URL.
pub(crate) fn new(url: &SecretString) -> anyhow::Result<(RateLimiter, RateLimitTask)> {
    let redis = RedisConnection::new(url, DEADLINE)?;
    let (sender, checks) = mpsc::channel(CAPACITY);
    let task = RateLimitTask {
        checks,
        redis: redis.clone(),
        script: Script::new(COUNT),
        paused_until: None,
        local: HashMap::new(),
        local_minute: 0,
    };
    Ok((RateLimiter { checks: sender, redis }, task))
}

impl RateLimiter {
    /// Counts a request and returns whether it is within `per_minute`; 0 means no limit.
    pub(crate) async fn check(
        &self,
        integration_id: IntegrationId,
        address: IpAddr,
        per_minute: u32,
        now: Timestamp,
    ) -> Verdict {
        if per_minute == 0 {
            return Verdict::Allowed;
        }
        let second = now.as_second();
        let key = CounterKey { integration_id, address, minute: second.div_euclid(WINDOW_SECONDS) };
        let (reply, counted) = oneshot::channel();
        if self.checks.try_send(PendingCheck { key, reply }).is_err() {
            return Verdict::Allowed;
        }
        match counted.await {
            Ok(count) if count > u64::from(per_minute) => Verdict::Limited {
                retry_after_seconds: (WINDOW_SECONDS - second.rem_euclid(WINDOW_SECONDS)).unsigned_abs(),
            },
            Ok(_) | Err(_) => Verdict::Allowed,
        }
    }

    /// Checks that Redis answers.
    pub(crate) async fn ping(&self) -> anyhow::Result<()> {
        let ping = async {
            let mut connection = self.redis.connection().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        ping.await.inspect_err(|_| self.redis.reset())?;
        Ok(())
    }
}

impl RateLimitTask {
    /// Counts until the token is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let received = stop.run_until_cancelled(self.checks.recv_many(&mut batch, BATCH)).await;
            if received.is_none_or(|count| count == 0) {
                return;
            }
            let counts = count_by_key(&batch);
            let sums = self.add(&counts).await;
            reply(batch.drain(..), counts, sums);
        }
    }

    async fn add(&mut self, counts: &[(CounterKey, u64)]) -> Vec<u64> {
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            return self.add_locally(counts);
        }
        let mut call = self.script.arg(WINDOW_SECONDS);
        for (key, count) in counts {
            call.key(format!("grapnel:rate:{}:{}:{}", key.integration_id, key.address, key.minute))
                .arg(*count);
        }
        let counted = async {
            let mut connection = self.redis.connection().await?;
            call.invoke_async::<Vec<u64>>(&mut connection).await
        };
        let sums = tokio::time::timeout(DEADLINE * 2, counted).await;
        match sums {
            Ok(Ok(sums)) if sums.len() == counts.len() => {
                if self.paused_until.take().is_some() {
                    tracing::info!("Redis is available again; rate limits are shared");
                }
                sums
            }
            failed => {
                if self.paused_until.is_none() {
                    let error = failed.map_or_else(
                        |_| "no answer in time".to_owned(),
                        |result| {
                            result.err().map_or_else(
                                || "an unexpected response".to_owned(),
                                |error| error.to_string(),
                            )
                        },
                    );
                    tracing::warn!(error, "Redis is unavailable; rate limits are counted in each process");
                }
                metrics::counter!("grapnel_rate_limit_fallbacks_total").increment(1);
                self.redis.reset();
                self.paused_until = Some(Instant::now() + PAUSE);
                self.add_locally(counts)
            }
        }
    }

    fn add_locally(&mut self, counts: &[(CounterKey, u64)]) -> Vec<u64> {
        let newest = counts.iter().map(|(key, _)| key.minute).max().unwrap_or(0);
        if newest > self.local_minute || self.local.len() >= LOCAL_KEYS {
            self.local.clear();
            self.local_minute = newest;
        }
        let add = |(key, count): &(CounterKey, u64)| {
            let sum = self.local.entry(key.clone()).or_default();
            *sum += count;
            *sum
        };
        counts.iter().map(add).collect()
    }
}

/// Counts the checks of each key in a batch.
fn count_by_key(batch: &[PendingCheck]) -> Vec<(CounterKey, u64)> {
    let mut counts: HashMap<&CounterKey, u64> = HashMap::new();
    for check in batch {
        *counts.entry(&check.key).or_default() += 1;
    }
    counts.into_iter().map(|(key, count)| (key.clone(), count)).collect()
}

/// Sends each check its position in the window. The sum includes the whole batch, whose checks are in order of arrival.
fn reply(batch: impl Iterator<Item = PendingCheck>, counts: Vec<(CounterKey, u64)>, sums: Vec<u64>) {
    let before = counts.into_iter().zip(sums).map(|((key, count), sum)| (key, sum.saturating_sub(count)));
    let mut positions: HashMap<CounterKey, u64> = before.collect();
    for check in batch {
        let position = positions.entry(check.key).or_default();
        *position += 1;
        // If the request is gone, nothing waits for the reply.
        let _gone = check.reply.send(*position);
    }
}
