//! A destination: a callback URL and its retry policy.

use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults::{int, section};
use super::verification::SecretRef;
use crate::rules;

/// A callback URL that receives events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::PREVIOUS_SIGNING)]
pub struct Destination {
    /// The name of the destination within the Integration. Required; a DNS label of at most 63 characters. A renamed
    /// destination is another destination: events that are queued for the old name are not delivered to the new one.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::DNS_LABEL)]
    pub name: String,

    /// The absolute http or https URL that events are posted to, without user name, password or fragment. Required; at
    /// most 2048 characters, all ASCII. Connections to loopback, link-local, metadata, multicast and private addresses
    /// are refused, unless the platform allows them.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = rules::URL_ABSOLUTE,
        validation = rules::URL_ASCII,
        validation = rules::URL_USERINFO,
        validation = rules::URL_FRAGMENT,
        validation = rules::URL_PORT,
        validation = rules::URL_ADDRESS
    )]
    pub url: String,

    /// The time limit of one attempt, from connecting to the end of the response, in seconds. Default: 10. 1 to 60.
    #[serde(default = "int::<10>")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_seconds: i32,

    /// The maximum number of requests in flight from one worker to this destination. Default: 64. 1 to 1024.
    #[serde(default = "int::<64>")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_concurrency: i32,

    /// How often and after which delays a failed delivery is attempted again.
    #[serde(default)]
    pub retry: RetryPolicy,

    /// The secret that deliveries are signed with, as Standard Webhooks defines it. Default: deliveries are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<SecretRef>,

    /// A secret that deliveries are also signed with during a rotation, so that a receiver with the old secret still
    /// accepts them. Requires signingSecretRef. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_signing_secret_ref: Option<SecretRef>,
}

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

impl Destination {
    /// Returns the time limit of one attempt.
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout_seconds)
    }

    /// Returns the maximum number of requests in flight from one worker, at least one.
    pub fn concurrency(&self) -> usize {
        usize::try_from(self.max_concurrency.max(1)).unwrap_or(1)
    }

    /// Returns the references to the secrets that deliveries are signed with, the current one first.
    pub fn signing_refs(&self) -> impl Iterator<Item = &SecretRef> {
        self.signing_secret_ref.iter().chain(&self.previous_signing_secret_ref)
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
}

fn seconds(value: i32) -> Duration {
    Duration::from_secs(value.max(0).unsigned_abs().into())
}
