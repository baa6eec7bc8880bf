//! The body of `POST /replays`.

use grapnel_core::replay::ReplayDocument;
use grapnel_crds::FieldError;
use grapnel_store::audit::is_system_actor;
use grapnel_store::replay_jobs::ReplayTarget;
use jiff::Timestamp;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::envelope::ApiError;
use crate::management::query::parse_integration;
use crate::management::replays::refuse_others;

/// The body of a request for a replay.
#[derive(Debug)]
pub(super) struct ReplayBody {
    pub(super) target: ReplayTarget,
    pub(super) document: ReplayDocument,
    pub(super) is_dry_run: bool,
    pub(super) expected_count: Option<u64>,
    pub(super) requested_by: Option<String>,
}

/// The body of a request for a replay, as it is described.
#[expect(dead_code, reason = "only described, never made")]
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct NewReplay {
    /// The Integration: its id, or `namespace/name`. This, or `namespace`.
    #[schema(nullable = false)]
    integration: Option<String>,
    /// All Integrations of this namespace.
    #[schema(nullable = false)]
    namespace: Option<String>,
    /// Only deliveries to these; by default to all that the Integrations have.
    #[schema(nullable = false, min_items = 1, max_items = 16)]
    destinations: Option<Vec<String>>,
    select: SelectSchema,
    /// Only events of these types: patterns as in a destination.
    #[schema(nullable = false, min_items = 1, max_items = 64)]
    event_types: Option<Vec<String>>,
    /// Only events with this text anywhere in the subject, in upper or lower case.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    subject: Option<String>,
    /// Only deliveries whose last attempt was answered with this status.
    #[schema(nullable = false, minimum = 100, maximum = 599)]
    http_status: Option<u16>,
    /// Only deliveries with this text anywhere in the last error. Needs the right to see payloads.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    error_contains: Option<String>,
    /// Only events for which this expression in CEL is true. Needs the right to see payloads.
    #[schema(nullable = false, max_length = 2048)]
    filter: Option<String>,
    /// Only events that were received at this time or later. Required unless `eventIds` are given.
    #[schema(nullable = false, value_type = Option<String>, format = DateTime)]
    received_after: Option<Timestamp>,
    /// Only events that were received before this time; now by default.
    #[schema(nullable = false, value_type = Option<String>, format = DateTime)]
    received_before: Option<Timestamp>,
    /// Only these events, in place of a window of receipt.
    #[schema(nullable = false, min_items = 1, max_items = 100)]
    event_ids: Option<Vec<Uuid>>,
    /// Deliveries per second.
    #[schema(nullable = false, minimum = 1, maximum = 5000, default = 50)]
    rate_per_second: Option<u32>,
    /// When more match, the replay is refused, or ends when it has fed so many.
    #[schema(nullable = false, minimum = 1, default = 10_000)]
    max_deliveries: Option<u64>,
    /// By the receipt of the events, for each destination.
    #[schema(nullable = false)]
    order: Option<OrderSchema>,
    /// For the audit trail.
    #[schema(min_length = 5, max_length = 500)]
    reason: String,
    /// Only count what would be delivered.
    #[schema(nullable = false, default = false)]
    dry_run: Option<bool>,
    /// As an earlier dry run counted. When it differs by more than 10 % from what is counted now, the replay is refused.
    #[schema(nullable = false, minimum = 0)]
    expected_count: Option<u64>,
    /// The one who asks, as the caller says. The audit trail names the one who was authenticated.
    #[schema(nullable = false, min_length = 2, max_length = 120)]
    requested_by: Option<String>,
}

/// Which deliveries are delivered again.
#[expect(dead_code, reason = "only described, never made")]
#[derive(Debug, ToSchema)]
#[schema(as = ReplaySelect)]
enum SelectSchema {
    /// Those that failed.
    Failed,
    /// Those that the filter of their destination left out. It is not asked again.
    Filtered,
    /// Those that there are none of: events from before their destination was added. Its filter applies.
    Missing,
    /// Those that failed and those that succeeded.
    All,
}

#[expect(dead_code, reason = "only described, never made")]
#[derive(Debug, ToSchema)]
#[schema(as = ReplayOrder)]
enum OrderSchema {
    OldestFirst,
    NewestFirst,
}

impl ReplayBody {
    pub(super) fn of(mut members: Map<String, Value>) -> Result<Self, ApiError> {
        let parsed = Self {
            target: target_of(&mut members)?,
            document: ReplayDocument::take_from(&mut members).map_err(|error| invalid(&error))?,
            is_dry_run: flag(&mut members, "dryRun")?,
            expected_count: number(&mut members, "expectedCount")?,
            requested_by: requested_by(&mut members)?,
        };
        refuse_others(&members)?;
        Ok(parsed)
    }
}

pub(super) fn target_of(members: &mut Map<String, Value>) -> Result<ReplayTarget, ApiError> {
    match (text(members, "integration")?, text(members, "namespace")?) {
        (Some(integration), None) => match parse_integration(&integration) {
            Some(integration) => Ok(ReplayTarget::Integration(integration)),
            None => {
                Err(ApiError::invalid("integration", "must be the id of an integration, or namespace/name"))
            }
        },
        (None, Some(namespace)) if (1..=253).contains(&namespace.len()) && !namespace.contains('\0') => {
            Ok(ReplayTarget::Namespace(namespace))
        }
        (None, Some(_)) => Err(ApiError::invalid("namespace", "must have 1 to 253 characters")),
        (Some(_), Some(_)) => Err(ApiError::invalid("namespace", "cannot be combined with integration")),
        (None, None) => Err(ApiError::invalid("integration", "is required, unless namespace is given")),
    }
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, ApiError> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::invalid(name, "must be a string")),
    }
}

fn flag(members: &mut Map<String, Value>, name: &str) -> Result<bool, ApiError> {
    match members.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(ApiError::invalid(name, "must be true or false")),
    }
}

fn number(members: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(value) = members.remove(name) else { return Ok(None) };
    let number = value.as_u64().ok_or_else(|| ApiError::invalid(name, "must be a whole number from 0 on"))?;
    Ok(Some(number))
}

fn requested_by(members: &mut Map<String, Value>) -> Result<Option<String>, ApiError> {
    const FIELD: &str = "requestedBy";
    let Some(name) = text(members, FIELD)? else { return Ok(None) };
    if !(2..=120).contains(&name.chars().count()) || name.contains('\0') {
        return Err(ApiError::invalid(FIELD, "must have 2 to 120 characters, none of them U+0000"));
    }
    if is_system_actor(&name) {
        return Err(ApiError::invalid(FIELD, "is reserved for a component of Grapnel"));
    }
    Ok(Some(name))
}

pub(super) fn invalid(error: &FieldError) -> ApiError {
    ApiError::invalid(&error.field, error.message.clone())
}

#[cfg(test)]
mod tests {
    use grapnel_store::views::IntegrationRef;

    use super::super::target;
    use super::*;
    use crate::management::body;

    #[test]
    fn a_body_names_an_integration_or_a_namespace() {
        let name = |namespace: &str, name: &str| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            ReplayTarget::Integration(IntegrationRef::Name { namespace, name })
        };
        assert_eq!(target(br#"{"integration":"shop/acme"}"#).unwrap(), name("shop", "acme"));
        assert_eq!(target(br#"{"namespace":"shop"}"#).unwrap(), ReplayTarget::Namespace("shop".to_owned()));
        for bad in ["{}", r#"{"integration":7}"#, r#"{"integration":"acme"}"#, "[]", r#"{"namespace":""}"#] {
            assert!(target(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(target(br#"{"integration":"shop/acme","namespace":"shop"}"#).is_err());
    }

    #[test]
    fn a_field_that_is_unknown_or_of_another_type_is_refused() {
        let refused = |rest: &str| {
            let body = format!(r#"{{"integration":"shop/acme","select":"All","reason":"outage"{rest}}}"#);
            body::members(body.as_bytes()).and_then(ReplayBody::of).err().map(|error| format!("{error:?}"))
        };
        assert_eq!(refused(""), None);
        for (rest, field) in [
            (r#","dryRun":"yes""#, "dryRun"),
            (r#","expectedCount":-1"#, "expectedCount"),
            (r#","requestedBy":"system""#, "requestedBy"),
            (r#","extra":1"#, "extra"),
            (r#","eventIds":["x"]"#, "eventIds"),
        ] {
            let refused = refused(rest).expect("a refusal");
            assert!(refused.contains(&format!("String(\"{field}\")")), "{rest}: {refused}");
        }
    }
}
