//! Rate limits, and the only module that speaks Redis.
//!
//! A limit counts requests of one integration from one source address in a minute of the clock, over all processes.
//! Requests that arrive while one call to Redis is under way share the next one: one script call for many requests.
//! Redis holds no truth: while it is away the same limits are counted in this process alone, and no webhook is refused
//! for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use grapnel_core::ids::IntegrationId;
use jiff::Timestamp;
use redis::Script;
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

mod redis_link;

use redis_link::RedisLink;

const WINDOW_SECONDS: i64 = 60;

/// Checks that may wait; a further one is allowed without being counted.
const WAITING: usize = 8_192;

/// Checks that share one script call.
const BATCH: usize = 512;

/// Redis answers within this, or the checks are counted here.
const DEADLINE: Duration = Duration::from_millis(250);

/// How long Redis is left alone after it failed.
const REST: Duration = Duration::from_secs(1);

/// Keys that are counted in this process while Redis is away. Beyond them a flood of addresses is not limited rather
/// than remembered.
const LOCAL_KEYS: usize = 100_000;

/// Adds to each key, lets a new one expire, and answers the sums.
const COUNT: &str = "
    local sums = {}
    for i, key in ipairs(KEYS) do
        local sum = redis.call('INCRBY', key, ARGV[i + 1])
        if sum == tonumber(ARGV[i + 1]) then redis.call('EXPIRE', key, ARGV[1]) end
        sums[i] = sum
    end
    return sums";

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// Over the limit until the clock's next minute.
    Limited {
        retry_after_seconds: u64,
    },
}

/// The way to the limits.
#[derive(Debug, Clone)]
pub struct Limits {
    checks: mpsc::Sender<Check>,
    redis: RedisLink,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    integration_id: IntegrationId,
    address: IpAddr,
    minute: i64,
}

#[derive(Debug)]
struct Check {
    key: Key,
    /// Answers how many requests of the window this one is.
    reply: oneshot::Sender<u64>,
}

/// The task's side of [`Limits`].
pub struct CountTask {
    checks: mpsc::Receiver<Check>,
    redis: RedisLink,
    script: Script,
    resting_until: Option<Instant>,
    local: HashMap<Key, u64>,
    local_minute: i64,
}

/// Whether the text is a URL of Redis.
pub fn is_url(text: &str) -> bool {
    redis::Client::open(text).is_ok()
}

/// The limits and the task that counts for them.
///
/// # Errors
/// A URL that is not Redis's.
pub fn limits(url: &SecretString) -> anyhow::Result<(Limits, CountTask)> {
    let redis = RedisLink::new(url, DEADLINE)?;
    let (sender, checks) = mpsc::channel(WAITING);
    let task = CountTask {
        checks,
        redis: redis.clone(),
        script: Script::new(COUNT),
        resting_until: None,
        local: HashMap::new(),
        local_minute: 0,
    };
    Ok((Limits { checks: sender, redis }, task))
}

impl Limits {
    /// Counts a request and says whether it is within `per_minute`; 0 is no limit.
    pub async fn check(
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
        let key = Key { integration_id, address, minute: second.div_euclid(WINDOW_SECONDS) };
        let (reply, counted) = oneshot::channel();
        if self.checks.try_send(Check { key, reply }).is_err() {
            return Verdict::Allowed;
        }
        match counted.await {
            Ok(count) if count > u64::from(per_minute) => Verdict::Limited {
                retry_after_seconds: (WINDOW_SECONDS - second.rem_euclid(WINDOW_SECONDS)).unsigned_abs(),
            },
            Ok(_) | Err(_) => Verdict::Allowed,
        }
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> anyhow::Result<()> {
        let ping = async {
            let mut connection = self.redis.connection().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        ping.await.inspect_err(|_| self.redis.forget())?;
        Ok(())
    }
}

impl CountTask {
    /// Counts until the token is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let received = stop.run_until_cancelled(self.checks.recv_many(&mut batch, BATCH)).await;
            if received.is_none_or(|count| count == 0) {
                return;
            }
            let counts = count_by_key(&batch);
            let sums = self.add(&counts).await;
            answer(batch.drain(..), counts, sums);
        }
    }

    async fn add(&mut self, counts: &[(Key, u64)]) -> Vec<u64> {
        if self.resting_until.is_some_and(|until| Instant::now() < until) {
            return self.add_here(counts);
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
                if self.resting_until.take().is_some() {
                    tracing::info!("Redis is back, rate limits are shared again");
                }
                sums
            }
            failed => {
                if self.resting_until.is_none() {
                    let error = failed.map_or_else(
                        |_| "no answer in time".to_owned(),
                        |result| {
                            result.err().map_or_else(
                                || "an answer of another form".to_owned(),
                                |error| error.to_string(),
                            )
                        },
                    );
                    tracing::warn!(error, "Redis is away, rate limits are counted in each process");
                }
                metrics::counter!("grapnel_rate_limit_fallbacks_total").increment(1);
                self.redis.forget();
                self.resting_until = Some(Instant::now() + REST);
                self.add_here(counts)
            }
        }
    }

    fn add_here(&mut self, counts: &[(Key, u64)]) -> Vec<u64> {
        let newest = counts.iter().map(|(key, _)| key.minute).max().unwrap_or(0);
        if newest > self.local_minute || self.local.len() >= LOCAL_KEYS {
            self.local.clear();
            self.local_minute = newest;
        }
        let add = |(key, count): &(Key, u64)| {
            let sum = self.local.entry(key.clone()).or_default();
            *sum += count;
            *sum
        };
        counts.iter().map(add).collect()
    }
}

/// How many checks each key has in a batch.
fn count_by_key(batch: &[Check]) -> Vec<(Key, u64)> {
    let mut counts: HashMap<&Key, u64> = HashMap::new();
    for check in batch {
        *counts.entry(&check.key).or_default() += 1;
    }
    counts.into_iter().map(|(key, count)| (key.clone(), count)).collect()
}

/// Gives each check its place in the window: the sum counts the whole batch, and the first of it came first.
fn answer(batch: impl Iterator<Item = Check>, counts: Vec<(Key, u64)>, sums: Vec<u64>) {
    let before = counts.into_iter().zip(sums).map(|((key, count), sum)| (key, sum.saturating_sub(count)));
    let mut places: HashMap<Key, u64> = before.collect();
    for check in batch {
        let place = places.entry(check.key).or_default();
        *place += 1;
        // The request may be gone; then nobody waits for the answer.
        let _gone = check.reply.send(*place);
    }
}
