//! Rate limits, and the connection to Redis.
//!
//! A limit counts the requests to one integration from one client in a clock minute, over all processes. Verified requests
//! are counted apart: a client that has sent one lately is known (`known_sources`), and is limited only by its verified
//! requests, so a stranger at the same address does not use up the provider's limit. Requests of a client that is not known
//! are counted before anything of them is read. Either way a webhook waits for one count.
//!
//! Requests that arrive during a call to Redis share the next one: one script call for many requests. Redis is not a source
//! of truth: while it is unavailable the same limits are counted in this process alone, and no webhook is refused because of
//! it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use grapnel_core::ids::IntegrationId;
use grapnel_platform::client_network::ClientNetwork;
use jiff::Timestamp;
use redis::{ConnectionAddr, Script};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

mod known_sources;
pub(crate) mod redis_connection;

use known_sources::{Begun, KnownRequest, KnownSources};
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

/// A request that is over a limit, until the next clock minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimited {
    pub(crate) per_minute: u32,
    pub(crate) retry_after_seconds: u64,
}

/// A handle that counts requests against their limits.
#[derive(Debug, Clone)]
pub(crate) struct RateLimiter {
    checks: mpsc::Sender<PendingCheck>,
    known: KnownSources,
    redis: RedisConnection,
}

/// Who sends requests, and to which integration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Source {
    integration_id: IntegrationId,
    client: ClientNetwork,
}

/// What is counted of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    /// Requests, before anything is known of them.
    Received,
    Verified,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CounterKey {
    source: Source,
    counted: Counted,
    minute: i64,
}

impl CounterKey {
    fn text(&self) -> String {
        let Self { source: Source { integration_id, client }, counted, minute } = self;
        let kind = match counted {
            Counted::Received => "",
            Counted::Verified => ":verified",
        };
        format!("grapnel:rate:{integration_id}:{client}:{minute}{kind}")
    }
}

/// A request that may be read and verified. Dropping it means that it was not verified.
#[derive(Debug)]
pub(crate) struct Admission(Option<LimitedAdmission>);

#[derive(Debug)]
struct LimitedAdmission {
    limiter: RateLimiter,
    source: Source,
    per_minute: u32,
    /// `None` for a source that is not known, whose request is counted already.
    known: Option<KnownRequest>,
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

/// Returns the host and the port of the server that a URL names.
pub(crate) fn server(url: &SecretString) -> Option<(String, u16)> {
    let client = redis::Client::open(url.expose_secret()).ok()?;
    match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
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
    Ok((RateLimiter { checks: sender, known: KnownSources::default(), redis }, task))
}

impl RateLimiter {
    /// Decides whether a request may be read and verified. A `per_minute` of 0 means no limit.
    ///
    /// # Errors
    /// When the source has sent too much in this minute.
    pub(crate) async fn admit(
        &self,
        integration_id: IntegrationId,
        client: ClientNetwork,
        per_minute: u32,
        now: Timestamp,
    ) -> Result<Admission, RateLimited> {
        if per_minute == 0 {
            return Ok(Admission(None));
        }
        let source = Source { integration_id, client };
        let known = match self.known.begin(&source, per_minute, minute(now)) {
            Begun::Known(request) => Some(request),
            Begun::OverLimit => return Err(limited(per_minute, now)),
            Begun::Unknown => {
                self.count(&source, Counted::Received, per_minute, now).await?;
                None
            }
        };
        Ok(Admission(Some(LimitedAdmission { limiter: self.clone(), source, per_minute, known })))
    }

    /// Counts a request and waits for its position.
    async fn count(
        &self,
        source: &Source,
        counted: Counted,
        per_minute: u32,
        now: Timestamp,
    ) -> Result<(), RateLimited> {
        let Some(position) = self.start_count(source, counted, now) else { return Ok(()) };
        match position.await {
            Ok(position) if position > u64::from(per_minute) => Err(limited(per_minute, now)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// `None` if too many checks wait: then the request is not counted.
    fn start_count(
        &self,
        source: &Source,
        counted: Counted,
        now: Timestamp,
    ) -> Option<oneshot::Receiver<u64>> {
        let key = CounterKey { source: source.clone(), counted, minute: minute(now) };
        let (reply, position) = oneshot::channel();
        self.checks.try_send(PendingCheck { key, reply }).ok().map(|()| position)
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

impl Admission {
    /// Counts the request as verified.
    ///
    /// # Errors
    /// When the source has sent too many verified ones in this minute.
    pub(crate) async fn verified(self, now: Timestamp) -> Result<(), RateLimited> {
        let Some(LimitedAdmission { limiter, source, per_minute, known }) = self.0 else { return Ok(()) };
        let Some(known) = known else {
            limiter.known.remember(source.clone());
            // It was within the limit as a request, so nobody waits for this.
            drop(limiter.start_count(&source, Counted::Verified, now));
            return Ok(());
        };
        known.verified();
        let counted = limiter.count(&source, Counted::Verified, per_minute, now).await;
        counted.inspect_err(|_| limiter.known.limit(&source, minute(now)))
    }
}

fn minute(now: Timestamp) -> i64 {
    now.as_second().div_euclid(WINDOW_SECONDS)
}

/// Returns the refusal until the end of the minute.
fn limited(per_minute: u32, now: Timestamp) -> RateLimited {
    let passed = now.as_second().rem_euclid(WINDOW_SECONDS);
    RateLimited { per_minute, retry_after_seconds: (WINDOW_SECONDS - passed).unsigned_abs() }
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
            call.key(key.text()).arg(*count);
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
