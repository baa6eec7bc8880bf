//! The Replay object: a job that delivers events of one Integration again.
//!
//! An object runs once. All of its spec but `state`, `ratePerSecond` and `ttlSecondsAfterFinished` is fixed when it is created,
//! so that the object always says what its job does. A dry run may become a run, once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::defaults::int;
use crate::replay_status::ReplayStatus;
use crate::rules::{self as shared_rules, destination as destination_rules, replay as rules};

/// Which deliveries are made again, how fast, and whether the job runs.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "grapnel.dev",
    version = "v1alpha1",
    kind = "Replay",
    namespaced,
    status = "ReplayStatus",
    derive = "PartialEq",
    shortname = "greplay",
    category = "grapnel",
    doc = "A Replay delivers events of an Integration again, at a rate that the receivers bear: those of which a delivery failed, \
           or others. It runs once: applying it again does nothing. It can be paused, resumed and cancelled, and deleting it \
           while it runs cancels it.",
    annotation("helm.sh/resource-policy", "keep"),
    validation = rules::INTEGRATION_FIXED,
    validation = rules::DESTINATIONS_FIXED,
    validation = rules::SELECT_FIXED,
    validation = rules::EVENT_TYPES_FIXED,
    validation = rules::SUBJECT_FIXED,
    validation = rules::HTTP_STATUS_FIXED,
    validation = rules::ERROR_CONTAINS_FIXED,
    validation = rules::FILTER_FIXED,
    validation = rules::RECEIVED_AFTER_FIXED,
    validation = rules::RECEIVED_BEFORE_FIXED,
    validation = rules::EVENT_IDS_FIXED,
    validation = rules::MAX_DELIVERIES_FIXED,
    validation = rules::ORDER_FIXED,
    validation = rules::REASON_FIXED,
    validation = rules::RUN_ID_FIXED,
    validation = rules::EXPECTED_COUNT_FIXED,
    validation = rules::DRY_RUN_FIRST,
    validation = rules::CANCELLED_STAYS,
    validation = rules::WINDOW_OR_IDS,
    validation = rules::WINDOW_BEGINS,
    validation = rules::WINDOW_ENDS_LATER,
    printcolumn(name = "Integration", type_ = "string", json_path = ".spec.integrationRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Running\")].reason",
        priority = 1
    ),
    printcolumn(name = "Rate", type_ = "integer", json_path = ".status.ratePerSecond", priority = 1),
    printcolumn(name = "Replay ID", type_ = "string", json_path = ".status.replayId", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ReplaySpec {
    /// The Integration whose events are delivered again. Required. Immutable. If it does not exist yet, the Replay waits for
    /// it.
    pub integration_ref: IntegrationRef,

    /// The names of the destinations to deliver to: at most 16 names of at most 63 characters. Immutable. Default: all
    /// destinations of the Integration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("items" = destination_items()))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::DESTINATION_NAMES)]
    pub destinations: Vec<String>,

    /// Which deliveries are made again. Required. Immutable. One of Failed (those that failed), Filtered (those that the filter of
    /// a destination left out; it is not asked again), Missing (those to destinations that the Integration got after the event;
    /// their filters apply) and All (those that failed and those that succeeded).
    pub select: ReplaySelection,

    /// The types of the events: at most 32 patterns of at most 255 characters, as in eventTypes of a destination. Immutable.
    /// Default: events of all types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("items" = event_type_items()))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = destination_rules::EVENT_TYPES)]
    pub event_types: Vec<String>,

    /// A text that the subject of the events must contain, in upper or lower case: 1 to 255 characters. Immutable. Default: any
    /// subject, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub subject: Option<String>,

    /// The HTTP status that the last attempt of the deliveries must have had: 100 to 599. Only with select Failed or All.
    /// Immutable. Default: any, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub http_status: Option<i32>,

    /// A text that the last error of the deliveries must contain, in upper or lower case: 1 to 255 characters. Only with select
    /// Failed or All. Immutable. Default: any error, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub error_contains: Option<String>,

    /// A CEL expression over event, payload and headers that must be true for the events, as in filter of a destination. At most
    /// 2048 characters. Immutable. Default: all events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub filter: Option<String>,

    /// The events must have been received at this time or later, which is in the past. Required unless eventIds is set. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_after: Option<Time>,

    /// The events must have been received before this time; later than the creation of the object counts as its creation.
    /// Immutable. Default: the creation of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_before: Option<Time>,

    /// The ids of the events, in place of receivedAfter and receivedBefore: 1 to 100 ids of 36 characters. Immutable. Default:
    /// the events of the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), extend("items" = event_id_items()))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::EVENT_IDS)]
    pub event_ids: Option<Vec<String>>,

    /// How many deliveries are made due in a second, over all destinations. It may be changed while the Replay runs. Default:
    /// 50. 1 to 5000.
    #[serde(default = "int::<50>")]
    #[schemars(range(min = 1, max = 5000))]
    pub rate_per_second: i32,

    /// The most deliveries that the Replay may make. When more match, it does not begin, or fails where it finds out: with the reason
    /// LimitReached. Immutable. Default: 10000. 1 to 1000000000.
    #[serde(default = "int::<10_000>")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_deliveries: i32,

    /// In which order events are delivered again. Immutable. Default: OldestFirst. One of OldestFirst and NewestFirst.
    #[serde(default)]
    pub order: ReplayOrder,

    /// Whether the Replay only counts what it would deliver, and does not begin: status.matched says how many deliveries match. It may be
    /// changed to false, once, and then the Replay begins. Default: false.
    #[serde(default)]
    pub dry_run: bool,

    /// How many deliveries must match, such as status.matched of a dry run. When more than 10 percent more or less match, the Replay does
    /// not begin. Immutable, except while dryRun is true. Default: any number. 0 to 1000000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub expected_count: Option<i32>,

    /// The reason, for the audit trail: 5 to 500 characters. Required. Immutable.
    #[schemars(length(min = 5, max = 500))]
    pub reason: String,

    /// Whether the Replay runs. Default: Running. One of Running, Paused (it can be continued) and Cancelled (it ends; this cannot
    /// be taken back). A change acts once: a pause by the Replay itself, or through the API, lasts until the next change.
    #[serde(default)]
    pub state: ReplayState,

    /// A text of your choice that makes this run another one: a Replay that is deleted and applied anew with the same name and
    /// spec does not run again without another runId. 1 to 63 characters. Immutable. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub run_id: Option<String>,

    /// How long after its end the object is deleted, in seconds; its audit entries and the record of its job stay. Default: it is
    /// not deleted. 0 to 31536000 (a year).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// An Integration in the namespace of the Replay.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntegrationRef {
    /// The name of an Integration in the namespace of the Replay. Required; a DNS subdomain of at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = shared_rules::DNS_SUBDOMAIN)]
    pub name: String,
}

/// Which deliveries are made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ReplaySelection {
    /// Deliveries that failed.
    Failed,
    /// Deliveries that the filter of a destination left out.
    Filtered,
    /// Deliveries to destinations that the Integration got after the event.
    Missing,
    /// Deliveries that failed and those that succeeded.
    All,
}

/// In which order events are delivered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ReplayOrder {
    /// The event that was received first comes first.
    #[default]
    OldestFirst,
    /// The event that was received last comes first.
    NewestFirst,
}

/// Whether the Replay runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ReplayState {
    /// Deliveries are made due, at the rate.
    #[default]
    Running,
    /// No more deliveries are made due until the state is Running again.
    Paused,
    /// The Replay ends; what it has made due is still delivered.
    Cancelled,
}

/// Returns the schema of the name of a destination. A rule of the list checks its syntax.
fn destination_items() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "description": "The name of a destination, of at most 63 characters."
    })
}

/// Returns the schema of a pattern of event types. A rule of the list checks its syntax.
fn event_type_items() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "description": "A pattern of at most 255 characters."
    })
}

/// Returns the schema of the id of an event. A rule of the list checks its syntax.
fn event_id_items() -> Value {
    json!({
        "type": "string",
        "minLength": 36,
        "maxLength": 36,
        "description": "The id of an event, of 36 characters."
    })
}
