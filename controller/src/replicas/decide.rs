//! How many workers a backlog needs: a function of the settings, the backlog, the history and the time.
//!
//! The semantics are those of the HorizontalPodAutoscaler with an additional step to zero. The target is an average
//! backlog for each worker, with a tolerance. The number rises at most by the larger of doubling and four in a minute,
//! and falls only to the highest number that was recommended within the stabilization window. The last worker stops
//! after the backlog has been empty for the cooldown. An unknown backlog never lowers the number.

use std::fmt;
use std::time::Duration;

use grapnel_crds::Scaling;
use grapnel_crds::conditions::limit;

use super::history::History;

/// Within a tenth of the target nothing changes, as in the HorizontalPodAutoscaler.
const TOLERANCE_PERCENT: i64 = 10;

/// How many workers may be added in a minute if doubling gives fewer: the HorizontalPodAutoscaler's default.
const UP_AT_LEAST: i32 = 4;

/// The scaling settings of an Integration, with the platform's own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub min: i32,
    pub max: i32,
    /// The platform's limit, which may be lower than `max`.
    pub platform_max: i32,
    pub target: i32,
    pub activation: i32,
    pub cooldown: Duration,
    pub stabilization: Duration,
}

impl Policy {
    pub fn new(scaling: &Scaling, platform_max: i32) -> Self {
        Self {
            min: scaling.min_replicas,
            max: scaling.max_replicas,
            platform_max,
            target: scaling.target_backlog_per_replica,
            activation: scaling.activation_backlog,
            cooldown: scaling.cooldown(),
            stabilization: scaling.stabilization_window(),
        }
    }

    fn upper(&self) -> i32 {
        self.max.min(self.platform_max).max(0)
    }

    fn lower(&self) -> i32 {
        self.min.clamp(0, self.upper())
    }

    /// Clamps a number to the bounds and names the bound that applied.
    fn clamp(&self, replicas: i32) -> (i32, Option<&'static str>) {
        if replicas > self.upper() {
            let by = if self.platform_max < self.max { limit::PLATFORM_LIMIT } else { limit::MAX_REPLICAS };
            (self.upper(), Some(by))
        } else if replicas < self.lower() {
            (self.lower(), Some(limit::MIN_REPLICAS))
        } else {
            (replicas, None)
        }
    }
}

/// The messages that are queued for an Integration, over all its destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub ready: u64,
    /// Delivered to a worker and not yet finished.
    pub unacknowledged: u64,
    /// Their deliveries, as far as they were counted: a message has one or several.
    pub deliveries: u64,
}

impl Backlog {
    pub fn messages(self) -> u64 {
        self.ready.saturating_add(self.unacknowledged)
    }

    /// Returns the number of deliveries, at least one for each message.
    pub fn load(self) -> u64 {
        self.deliveries.max(self.messages())
    }

    /// Returns the sum of two.
    pub fn plus(self, other: Self) -> Self {
        Self {
            ready: self.ready.saturating_add(other.ready),
            unacknowledged: self.unacknowledged.saturating_add(other.unacknowledged),
            // Of each the load, so that one that was not counted counts by its messages.
            deliveries: self.load().saturating_add(other.load()),
        }
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.load() > self.messages() { " in messages" } else { "" };
        let Self { ready, unacknowledged, .. } = self;
        write!(f, "backlog {}{by} (ready {ready}, unacknowledged {unacknowledged})", self.load())
    }
}

/// The number of workers to run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub replicas: i32,
    /// The limit that keeps the number from what the backlog alone would need; one of `conditions::limit`.
    pub limited_by: Option<&'static str>,
    pub message: String,
}

/// Decides from a current reading, which is added to the history.
pub fn decide(
    policy: &Policy,
    current: i32,
    backlog: Backlog,
    history: &mut History,
    now: Duration,
) -> Decision {
    let recommended = recommend(policy, current, backlog.load());
    history.observe(now, recommended, backlog.load() == 0);
    let (stabilized, stabilized_by) = stabilize(policy, current, recommended, history, now);
    let (replicas, clamped_by) = policy.clamp(stabilized);
    let (replicas, rate_limited_by) = limit_rate(current, replicas, policy, history, now);
    Decision {
        replicas,
        limited_by: rate_limited_by.or(clamped_by).or(stabilized_by),
        message: format!("{backlog}, target {} per worker", policy.target),
    }
}

/// Decides without a reading: the number stays, within the configured bounds.
pub fn hold(policy: &Policy, current: i32) -> Decision {
    let (replicas, _) = policy.clamp(current);
    Decision {
        replicas,
        limited_by: Some(limit::UNKNOWN_BACKLOG),
        message: "the backlog is unknown, so the number of workers is held".to_owned(),
    }
}

/// Returns the number that the backlog alone needs.
fn recommend(policy: &Policy, current: i32, load: u64) -> i32 {
    let load = i64::try_from(load).unwrap_or(i64::MAX);
    let target = i64::from(policy.target.max(1));
    let needed = i32::try_from(load.saturating_add(target - 1) / target).unwrap_or(i32::MAX);
    if current <= 0 {
        // The threshold must be exceeded; it has no meaning when there is always a worker.
        let active = policy.lower() > 0 || load > i64::from(policy.activation);
        return if active { needed } else { 0 };
    }
    let ideal = i64::from(current).saturating_mul(target);
    let deviation = (load - ideal).unsigned_abs();
    let within_tolerance = deviation.saturating_mul(100) <= (ideal * TOLERANCE_PERCENT).unsigned_abs();
    if within_tolerance { current } else { needed }
}

/// Holds back a lower number until it has been enough for the window, and zero until the cooldown is over.
fn stabilize(
    policy: &Policy,
    current: i32,
    recommended: i32,
    history: &History,
    now: Duration,
) -> (i32, Option<&'static str>) {
    if recommended >= current {
        return (recommended, None);
    }
    let settled = match history.highest_within(policy.stabilization, now) {
        None => return (current, Some(limit::STABILIZATION)),
        Some(highest) if highest >= current => return (current, Some(limit::STABILIZATION)),
        Some(highest) => highest.max(recommended),
    };
    if settled == 0 && history.empty_for(now).is_none_or(|empty| empty < policy.cooldown) {
        return (1, Some(limit::COOLDOWN));
    }
    (settled, (settled > recommended).then_some(limit::STABILIZATION))
}

/// Allows doubling or four more in a minute, whichever is more. The configured minimum is not held back.
fn limit_rate(
    current: i32,
    wanted: i32,
    policy: &Policy,
    history: &History,
    now: Duration,
) -> (i32, Option<&'static str>) {
    // The first worker is an activation; the limit counts from there.
    let base = current.saturating_sub(history.raised_recently(now)).max(1);
    let most = base.saturating_mul(2).max(base.saturating_add(UP_AT_LEAST)).max(current).max(policy.lower());
    if wanted > most { (most, Some(limit::SCALE_UP_RATE)) } else { (wanted, None) }
}

#[cfg(test)]
mod tests;
