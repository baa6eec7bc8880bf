//! The Integration object: a configured source of webhooks and the destinations that receive its events.
//!
//! `kubectl explain` prints the documentation of each field. It names the default, the bounds and the unit, because
//! `kubectl explain` shows none of them.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults::{int, section};
use super::destination::Destination;
use super::handshake::Handshake;
use super::mapping::{Acknowledgement, Mapping};
use super::verification::Verification;
use super::workers::Workers;
use crate::presets;
use crate::rules::{self, provider as provider_rules};
use crate::status::IntegrationStatus;

/// The desired state of an Integration: the webhooks to accept, how to verify them, and where to deliver them.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "grapnel.dev",
    version = "v1alpha1",
    kind = "Integration",
    namespaced,
    status = "IntegrationStatus",
    derive = "PartialEq",
    shortname = "gint",
    category = "grapnel",
    doc = "An Integration accepts the webhooks of one provider and delivers them to its destinations. Webhooks are \
           verified, deduplicated and stored before they are acknowledged, delivered with retries, and can be replayed. \
           The workers that deliver them scale with the backlog, down to zero.",
    annotation("helm.sh/resource-policy", "keep"),
    selectable = ".spec.provider",
    selectable = ".spec.state",
    validation = rules::ROUTE_IMMUTABLE,
    validation = rules::ROUTE_NEEDED,
    validation = provider_rules::CUSTOM_SCHEME,
    validation = provider_rules::CUSTOM_MAPPING,
    validation = provider_rules::COMPLETE_TYPE,
    validation = provider_rules::COMPLETE_MESSAGE,
    validation = provider_rules::COMPLETE_SIGNATURE,
    validation = provider_rules::COMPLETE_TIMESTAMP,
    validation = provider_rules::SECRET_COVERED,
    validation = provider_rules::COMPLETE_EVENT_TYPE,
    validation = provider_rules::COMPLETE_SPLIT,
    scale(
        spec_replicas_path = ".spec.workers.replicas",
        status_replicas_path = ".status.workers.replicas",
        label_selector_path = ".status.workers.selector"
    ),
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "Route", type_ = "string", json_path = ".status.route.path"),
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.workers.replicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.route.url", priority = 1),
    printcolumn(name = "Integration ID", type_ = "string", json_path = ".status.integrationId", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationSpec {
    /// The preset that defines how webhooks of this source are verified and read, such as acme, globex, github or
    /// stripe; custom for a source without a preset. Required; a DNS label of at most 63 characters. Immutable. A
    /// preset that this definition has and an older controller lacks is reported as Accepted=False with the reason
    /// UnsupportedProvider.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::DNS_LABEL, validation = presets::KNOWN, validation = rules::PROVIDER_IMMUTABLE)]
    pub provider: String,

    /// The path segment that the provider posts to: /api/v1/webhooks/{route}. A DNS label of at most 63 characters.
    /// Default: the name of the object, which must then be a DNS label. Immutable. A route belongs to one Integration
    /// in the whole cluster; the first claim wins, and the others are reported as Accepted=False with the reason
    /// RouteConflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::DNS_LABEL)]
    pub route: Option<String>,

    /// A human-readable name of at most 128 characters. Default: the name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,

    /// Whether webhooks are accepted and whether events are delivered. Default: Active. One of Active (accept and
    /// deliver), DeliveryPaused (accept and store, deliver nothing until it is Active again) and Disabled (reject
    /// webhooks with 404 and deliver nothing).
    #[serde(default)]
    pub state: IntegrationState,

    /// The limits that a webhook must meet to be accepted.
    #[serde(default)]
    pub ingress: IngressLimits,

    /// How webhooks are verified, and the secrets to verify them with. Required.
    pub verification: Verification,

    /// How a webhook becomes an event: where to find its fields, and what to deliver. Set what differs from the preset.
    /// Required when provider is custom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<Mapping>,

    /// Handshake requests to answer without recording an event, in addition to the preset's: at most 4, with different
    /// names. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub handshakes: Vec<Handshake>,

    /// The response to an accepted webhook. Set what differs from the preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Acknowledgement>,

    /// Where events are delivered: 1 to 16 destinations with different names. Each event is delivered to all of them,
    /// independently of each other. Required.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub destinations: Vec<Destination>,

    /// The pods that deliver the events of this Integration, and how many of them run.
    #[serde(default)]
    pub workers: Workers,

    /// How long events are kept.
    #[serde(default)]
    pub retention: Retention,

    /// Treatment of the history when the object is deleted. Default: Retain. One of Retain (events, attempts and
    /// audit entries stay until their retention ends; webhooks are rejected) and Delete (they are deleted too, in the
    /// background: the object does not wait for that).
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// How long the deletion of the object waits for queued deliveries, in seconds. Deliveries that are left after that
    /// are abandoned, and an Event reports their number. Default: 300. 0 to 3600; 0 does not wait.
    #[serde(default = "int::<300>")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_timeout_seconds: i32,
}

/// The state of an Integration: whether it accepts webhooks and delivers events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum IntegrationState {
    /// Webhooks are accepted and events are delivered.
    #[default]
    Active,
    /// Webhooks are accepted and stored; nothing is delivered until the state is Active again.
    DeliveryPaused,
    /// Webhooks are rejected with 404 and nothing is delivered.
    Disabled,
}

/// The treatment of the history of a deleted Integration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Events, attempts and audit entries stay until their retention ends.
    #[default]
    Retain,
    /// Events, attempts and audit entries are deleted in the background, beginning when the object is deleted.
    Delete,
}

/// The limits that a webhook must meet to be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressLimits {
    /// The methods that webhooks may have: 1 to 3 different ones. Another is answered with 405, unless a handshake has it.
    /// Default: POST alone. A GET without a body has its query as payload, as if it were a form.
    #[serde(default = "default_methods")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::METHODS)]
    pub methods: Vec<WebhookMethod>,

    /// The largest accepted body, in bytes; a larger one is answered with 413. A body with the content-encoding gzip or
    /// deflate may be as large before it is decoded and after. Default: 1048576 (1 MiB).
    /// 1024 (1 KiB) to 10485760 (10 MiB).
    #[serde(default = "int::<1_048_576>")]
    #[schemars(range(min = 1024, max = 10_485_760))]
    pub max_body_bytes: i32,

    /// Webhooks accepted per minute from one source address; more are answered with 429 and Retry-After. Default: the
    /// platform's limit. 0 to 1000000. The platform may have a ceiling, which is also what 0 means; without one, 0 means no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub rate_limit_per_minute: Option<i32>,
}

impl Default for IngressLimits {
    fn default() -> Self {
        section()
    }
}

/// A method of webhooks. One of POST, GET and PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum WebhookMethod {
    /// POST.
    Post,
    /// GET.
    Get,
    /// PUT.
    Put,
}

fn default_methods() -> Vec<WebhookMethod> {
    vec![WebhookMethod::Post]
}

/// How long events are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How many days an event, its attempts and its audit entries are kept after the event was received. Default: 30.
    /// 1 to 3650; a number above the platform's longest retention (3650 unless it is configured) counts as that, and the
    /// condition Restricted says so. An event that still has an unfinished delivery then is kept for up to 7 more days; after
    /// that the delivery fails.
    #[serde(default = "int::<30>")]
    #[schemars(range(min = 1, max = 3650))]
    pub days: i32,
}

impl Default for Retention {
    fn default() -> Self {
        section()
    }
}

impl IntegrationSpec {
    /// Returns the destination of that name.
    pub fn destination(&self, name: &str) -> Option<&Destination> {
        self.destinations.iter().find(|destination| destination.name == name)
    }

    /// Returns whether webhooks are accepted.
    pub fn accepts(&self) -> bool {
        self.state != IntegrationState::Disabled
    }

    /// Returns whether events are delivered.
    pub fn delivers(&self) -> bool {
        self.state == IntegrationState::Active
    }
}
