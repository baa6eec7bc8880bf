//! How often and after which delays a failed delivery is attempted again.

use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::seconds;
use crate::rules::destination as rules;
use crate::spec::defaults::{int, section};

/// How often and after which delays a failed delivery is attempted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::RETRY_DELAYS)]
pub struct RetryPolicy {
    /// The maximum number of attempts at a delivery, including the first. Default: 5. 1 to 100; 1 does not retry.
    #[serde(default = "int::<5>")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: i32,

    /// How the delay between attempts grows. Default: Exponential. One of Exponential (it doubles) and Linear (the
    /// initial delay is added each time). The actual delay is random between zero and that value, so that the retries
    /// of many deliveries spread out.
    #[serde(default)]
    pub backoff: Backoff,

    /// The delay after the first attempt, in seconds. Default: 5. 1 to 3600, and not more than maxDelaySeconds.
    #[serde(default = "int::<5>")]
    #[schemars(range(min = 1, max = 3600))]
    pub initial_delay_seconds: i32,

    /// The longest delay between two attempts, in seconds. Default: 3600. 1 to 86400.
    #[serde(default = "int::<3600>")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_delay_seconds: i32,

    /// The longest Retry-After header of the destination that is honored, in seconds. Default: 3600. 0 to 86400; 0
    /// ignores the header.
    #[serde(default = "int::<3600>")]
    #[schemars(range(min = 0, max = 86_400))]
    pub retry_after_max_seconds: i32,

    /// Statuses of a response that end the delivery as failed at once, because trying again would not change them: at
    /// most 32, each 300 to 599. Default: none but 410, which ends it in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("items" = final_status_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub final_statuses: Vec<i32>,
}

/// How the delay between attempts grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Backoff {
    /// The delay doubles after each attempt.
    #[default]
    Exponential,
    /// The initial delay is added after each attempt.
    Linear,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        section()
    }
}

impl RetryPolicy {
    /// Returns the maximum number of attempts, at least one.
    pub fn attempts(&self) -> u32 {
        self.max_attempts.max(1).unsigned_abs()
    }

    /// Returns the delay after the first attempt.
    pub fn initial_delay(&self) -> Duration {
        seconds(self.initial_delay_seconds)
    }

    /// Returns the longest delay between two attempts.
    pub fn max_delay(&self) -> Duration {
        seconds(self.max_delay_seconds)
    }

    /// Returns the longest Retry-After header that is honored; zero ignores the header.
    pub fn retry_after_max(&self) -> Duration {
        seconds(self.retry_after_max_seconds)
    }

    /// Returns the statuses that end a delivery at once.
    pub fn final_statuses(&self) -> impl Iterator<Item = u16> {
        self.final_statuses.iter().filter_map(|status| u16::try_from(*status).ok())
    }
}

/// Returns the schema of a status that ends a delivery.
fn final_status_items() -> Value {
    json!({
        "type": "integer",
        "format": "int32",
        "minimum": 300.0,
        "maximum": 599.0,
        "description": "A status of a response, 300 to 599."
    })
}
