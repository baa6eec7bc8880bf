//! The condition types of an Integration and the reasons they are reported with, and those of a Replay ([`replay`]). Types and
//! reasons are API: scripts and alerts match them, so a name may be added but neither changed nor reused.
//!
//! A condition follows the metav1 conventions: it is keyed by its type, its status is True, False or Unknown, and its
//! transition time changes only when its status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{Schema, SchemaGenerator, json_schema};

pub mod replay;

/// Status of a condition that holds.
pub const TRUE: &str = "True";
/// Status of a condition that does not hold.
pub const FALSE: &str = "False";
/// Status of a condition that could not be determined.
pub const UNKNOWN: &str = "Unknown";

/// The condition types.
pub mod condition {
    /// Webhooks are accepted and delivered as the spec requires; a summary of the others. An Integration that is paused
    /// or disabled on purpose, or whose workers are scaled to zero, is ready.
    pub const READY: &str = "Ready";
    /// The object is valid, its provider is known and its route is its own.
    pub const ACCEPTED: &str = "Accepted";
    /// Every referenced Secret was read and has the key.
    pub const SECRETS_RESOLVED: &str = "SecretsResolved";
    /// The Integration is registered with the api and the workers as this generation of the spec defines it.
    pub const REGISTERED: &str = "Registered";
    /// Every Service that is a destination has endpoints that can be delivered to; present only if one is.
    pub const SERVICES_RESOLVED: &str = "ServicesResolved";
    /// Every destination has its queue.
    pub const QUEUES_READY: &str = "QueuesReady";
    /// All requested workers are ready; True when none are requested.
    pub const WORKERS_AVAILABLE: &str = "WorkersAvailable";
    /// The backlog can be read and the number of workers follows it.
    pub const SCALING_ACTIVE: &str = "ScalingActive";
    /// A change is in progress; present only while it is True.
    pub const RECONCILING: &str = "Reconciling";
    /// A change cannot proceed until someone acts; present only while it is True.
    pub const STALLED: &str = "Stalled";
    /// A secret that the provider issued in a handshake is not in its Secret yet; present only while it is True.
    pub const CAPTURE_WAITING: &str = "CaptureWaiting";

    /// The filters of the destinations can be evaluated; present only if a destination has one.
    pub const FILTERS_HEALTHY: &str = "FiltersHealthy";

    /// Part of spec.workers, or of spec.retention, has no effect, because the platform does not permit it; present only while it is
    /// True.
    pub const RESTRICTED: &str = "Restricted";

    /// A destination answered 410 (Gone), and deliveries to it are held until the spec changes; present only while it is True.
    pub const DESTINATION_GONE: &str = "DestinationGone";

    /// The types that are always present once the controller has seen the object, in the order of reconciling.
    pub const ALWAYS_PRESENT: [&str; 7] =
        [READY, ACCEPTED, SECRETS_RESOLVED, REGISTERED, QUEUES_READY, WORKERS_AVAILABLE, SCALING_ACTIVE];
}

/// The reasons, with the condition types they belong to.
pub mod reason {
    /// Any type, True: nothing is missing.
    pub const AS_DESIRED: &str = "AsDesired";
    /// Any type, Unknown: an earlier step has not succeeded, so this one was not tried.
    pub const NOT_YET_TRIED: &str = "NotYetTried";
    /// Reconciling: a change is in progress.
    pub const PROGRESSING: &str = "Progressing";

    /// Ready, True: state is DeliveryPaused; webhooks are accepted and nothing is delivered.
    pub const DELIVERY_PAUSED: &str = "DeliveryPaused";
    /// Ready, True: state is Disabled; webhooks are rejected.
    pub const DISABLED: &str = "Disabled";
    /// Ready, False: the object is being deleted.
    pub const DELETING: &str = "Deleting";
    /// Ready and Reconciling: the object is being deleted, and its queued deliveries are still being sent.
    pub const DRAINING: &str = "Draining";

    /// Accepted, False: the spec breaks a rule that the API server does not check; the message names the field.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// Accepted, False: this version does not have the provider.
    pub const UNSUPPORTED_PROVIDER: &str = "UnsupportedProvider";
    /// Accepted, False: the filter of a destination cannot be used; the message names the field and the place in it.
    pub const FILTER_INVALID: &str = "FilterInvalid";
    /// FiltersHealthy, False: a filter could not be evaluated for an event of the last day; the message names both.
    pub const FILTER_FAILED: &str = "FilterFailed";

    /// Accepted, False: another Integration holds the route, or another namespace had it until lately.
    pub const ROUTE_CONFLICT: &str = "RouteConflict";

    /// Accepted, False: the namespace has more Integrations than the platform allows, and older ones have the places.
    pub const NAMESPACE_LIMIT_REACHED: &str = "NamespaceLimitReached";

    /// Restricted: the platform does not permit some fields of spec.workers, or as long a retention; the message names them.
    pub const NOT_PERMITTED: &str = "NotPermitted";

    /// Accepted, True: the scheme is weak but permitted; the message names the field.
    pub const DOUBTFUL_SCHEME: &str = "DoubtfulScheme";

    /// SecretsResolved, True: a secret begins or ends with white space; the message names the Secret and the key.
    pub const DOUBTFUL_SECRET: &str = "DoubtfulSecret";
    /// SecretsResolved, False, or CaptureWaiting: a referenced Secret does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// SecretsResolved, False: a referenced Secret does not have the key.
    pub const SECRET_KEY_MISSING: &str = "SecretKeyMissing";
    /// SecretsResolved, False: the value of a referenced key is empty.
    pub const SECRET_EMPTY: &str = "SecretEmpty";
    /// SecretsResolved, False: the value of a referenced key is not valid for the provider's scheme.
    pub const SECRET_INVALID: &str = "SecretInvalid";
    /// SecretsResolved, False: a destination refers to a Secret that lacks the label grapnel.dev/destination: "true".
    pub const SECRET_NOT_LABELED: &str = "SecretNotLabeled";
    /// SecretsResolved, Unknown, or CaptureWaiting: reading or writing a referenced Secret is forbidden.
    pub const SECRET_FORBIDDEN: &str = "SecretForbidden";

    /// CaptureWaiting: the Secret lacks the annotation that permits a captured secret to be written to it.
    pub const CONSENT_MISSING: &str = "ConsentMissing";
    /// CaptureWaiting: the API server rejected the change of the Secret; the message is its response.
    pub const SECRET_REJECTED: &str = "SecretRejected";
    /// CaptureWaiting: the captured secret was sealed with a key that the controller does not have.
    pub const CAPTURE_UNREADABLE: &str = "CaptureUnreadable";

    /// Registered, Unknown or False: PostgreSQL did not respond.
    pub const DATABASE_UNAVAILABLE: &str = "DatabaseUnavailable";
    /// Registered, False: a newer generation of the object is already registered.
    pub const SUPERSEDED: &str = "Superseded";
    /// Registered, False: an Integration that was applied from a file has the same namespace and name.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// ServicesResolved, False: a Service does not exist.
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
    /// ServicesResolved, False: a Service does not have the port.
    pub const SERVICE_PORT_MISSING: &str = "ServicePortMissing";
    /// ServicesResolved, False: a Service leads out of its namespace, or belongs to the platform; the message says how.
    pub const SERVICE_NOT_ALLOWED: &str = "ServiceNotAllowed";
    /// ServicesResolved, False: no pod of a Service is ready. Deliveries to it wait.
    pub const NO_READY_ENDPOINTS: &str = "NoReadyEndpoints";
    /// ServicesResolved, Unknown: the Services of the namespace could not be read yet.
    pub const SERVICES_UNREADABLE: &str = "ServicesUnreadable";
    /// QueuesReady, Unknown or False: RabbitMQ did not respond.
    pub const QUEUE_UNAVAILABLE: &str = "QueueUnavailable";
    /// QueuesReady, False: a queue of that name exists with other properties.
    pub const QUEUE_MISMATCH: &str = "QueueMismatch";

    /// WorkersAvailable, True: no worker is requested, because there is nothing to deliver.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// WorkersAvailable, False: fewer workers are ready than are requested.
    pub const WORKERS_STARTING: &str = "WorkersStarting";
    /// WorkersAvailable, False: workers do not become ready; the message is the report of their pods.
    pub const WORKERS_FAILING: &str = "WorkersFailing";
    /// WorkersAvailable, False: the API server rejected the Deployment; the message is its response.
    pub const DEPLOYMENT_REJECTED: &str = "DeploymentRejected";

    /// DestinationGone: the message names the destinations.
    pub const GONE: &str = "Gone";

    /// ScalingActive, False: the backlog cannot be read, so the number of workers is held.
    pub const METRIC_UNAVAILABLE: &str = "MetricUnavailable";
    /// ScalingActive, True: more workers would be started if maxReplicas allowed it.
    pub const AT_MAX_REPLICAS: &str = "AtMaxReplicas";
    /// ScalingActive, False: scaling.mode is Manual or External.
    pub const NOT_AUTOMATIC: &str = "NotAutomatic";
    /// ScalingActive, False: the state stops deliveries, so no worker is requested.
    pub const DELIVERY_STOPPED: &str = "DeliveryStopped";
}

/// The limits on the number of workers: the values of `status.scaling.limitedBy`.
pub mod limit {
    /// `minReplicas` keeps it up.
    pub const MIN_REPLICAS: &str = "MinReplicas";
    /// `maxReplicas` keeps it down.
    pub const MAX_REPLICAS: &str = "MaxReplicas";
    /// The platform's own limit, for one Integration or for its namespace, keeps it down.
    pub const PLATFORM_LIMIT: &str = "PlatformLimit";
    /// It may not rise faster.
    pub const SCALE_UP_RATE: &str = "ScaleUpRate";
    /// A higher number was needed within the stabilization window.
    pub const STABILIZATION: &str = "Stabilization";
    /// The backlog has not been empty for long enough to stop the last worker.
    pub const COOLDOWN: &str = "Cooldown";
    /// The backlog is not known.
    pub const UNKNOWN_BACKLOG: &str = "UnknownBacklog";
}

/// Returns the condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Adds a condition, in place of the one of its type. The time of the last transition changes only with the status.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition) {
    match conditions.iter_mut().find(|present| present.type_ == condition.type_) {
        Some(present) => {
            if present.status == condition.status {
                condition.last_transition_time = present.last_transition_time.clone();
            }
            *present = condition;
        }
        None => conditions.push(condition),
    }
}

/// Removes the condition of that type. For those that are present only while they are True.
pub fn clear(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// Returns the schema of the conditions, with the bounds of metav1. The schema that comes with the type leaves the
/// status open and the list atomic.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "Condition type, in CamelCase.",
                    "type": "string", "minLength": 1, "maxLength": 316
                },
                "status": {
                    "description": "Status of the condition: True, False or Unknown.",
                    "type": "string", "enum": [TRUE, FALSE, UNKNOWN]
                },
                "observedGeneration": {
                    "description": "The generation of the spec that the condition describes.",
                    "type": "integer", "format": "int64", "minimum": 0
                },
                "lastTransitionTime": {
                    "description": "When the status last changed.",
                    "type": "string", "format": "date-time"
                },
                "reason": {
                    "description": "The reason, as one CamelCase word.",
                    "type": "string", "minLength": 1, "maxLength": 1024
                },
                "message": {
                    "description": "A human-readable explanation; may be empty.",
                    "type": "string", "maxLength": 32768
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str, reason: &str, time: &str) -> Condition {
        serde_json::from_value(serde_json::json!({
            "type": condition::READY, "status": status, "reason": reason, "message": "", "lastTransitionTime": time
        }))
        .expect("a condition")
    }

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, ready(UNKNOWN, reason::NOT_YET_TRIED, "2026-11-23T10:00:00Z"));
        set(&mut conditions, ready(FALSE, reason::ROUTE_CONFLICT, "2026-11-23T10:00:01Z"));
        set(&mut conditions, ready(FALSE, reason::SECRET_NOT_FOUND, "2026-11-23T10:00:02Z"));
        assert_eq!(conditions, [ready(FALSE, reason::SECRET_NOT_FOUND, "2026-11-23T10:00:01Z")]);
        assert_eq!(find(&conditions, condition::READY), conditions.first());
        clear(&mut conditions, condition::READY);
        assert_eq!(find(&conditions, condition::READY), None);
    }
}
