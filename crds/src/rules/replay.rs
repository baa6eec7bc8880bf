//! The rules about replays.

use super::CelRule;

/// A rule for a field of the spec that never changes: it is neither set, nor replaced, nor removed later. CEL can estimate the cost
/// of comparing fields, but not that of comparing optional values.
macro_rules! fixed {
    ($($name:ident: $field:literal),* $(,)?) => {$(
        pub(crate) const $name: CelRule = CelRule::new(
            concat!(
                "has(self.spec.", $field, ") ? has(oldSelf.spec.", $field, ") && self.spec.", $field, " == oldSelf.spec.",
                $field, " : !has(oldSelf.spec.", $field, ")"
            ),
            "is immutable: create another Replay for another selection",
        )
        .at_field(concat!(".spec.", $field));
    )*};
}

fixed! {
    INTEGRATION_FIXED: "integrationRef",
    DESTINATIONS_FIXED: "destinations",
    SELECT_FIXED: "select",
    EVENT_TYPES_FIXED: "eventTypes",
    SUBJECT_FIXED: "subject",
    HTTP_STATUS_FIXED: "httpStatus",
    ERROR_CONTAINS_FIXED: "errorContains",
    FILTER_FIXED: "filter",
    RECEIVED_AFTER_FIXED: "receivedAfter",
    RECEIVED_BEFORE_FIXED: "receivedBefore",
    EVENT_IDS_FIXED: "eventIds",
    MAX_DELIVERIES_FIXED: "maxDeliveries",
    ORDER_FIXED: "order",
    REASON_FIXED: "reason",
    RUN_ID_FIXED: "runId",
}

pub(crate) const EXPECTED_COUNT_FIXED: CelRule = CelRule::new(
    "oldSelf.spec.?dryRun.orValue(false) || (has(self.spec.expectedCount) ? has(oldSelf.spec.expectedCount) && \
     self.spec.expectedCount == oldSelf.spec.expectedCount : !has(oldSelf.spec.expectedCount))",
    "is immutable, except while dryRun is true",
)
.at_field(".spec.expectedCount");

pub(crate) const DRY_RUN_FIRST: CelRule = CelRule::new(
    "oldSelf.spec.?dryRun.orValue(false) || !self.spec.?dryRun.orValue(false)",
    "cannot become true: create another Replay to count again",
)
.at_field(".spec.dryRun");

pub(crate) const CANCELLED_STAYS: CelRule = CelRule::new(
    "oldSelf.spec.?state.orValue('Running') != 'Cancelled' || self.spec.?state.orValue('Running') == 'Cancelled'",
    "must stay Cancelled: create another Replay to deliver the rest",
)
.at_field(".spec.state");

// The window.

pub(crate) const WINDOW_OR_IDS: CelRule = CelRule::new(
    "has(self.spec.receivedAfter) != has(self.spec.eventIds)",
    "must be set, or eventIds instead of it; not both",
)
.at_field(".spec.receivedAfter");

pub(crate) const WINDOW_BEGINS: CelRule = CelRule::new(
    "!has(self.spec.receivedBefore) || has(self.spec.receivedAfter) || !has(self.spec.eventIds)",
    "must not be set with eventIds",
)
.at_field(".spec.receivedBefore");

pub(crate) const WINDOW_ENDS_LATER: CelRule = CelRule::new(
    "!has(self.spec.receivedAfter) || !has(self.spec.receivedBefore) || \
     self.spec.receivedAfter < self.spec.receivedBefore",
    "must be after receivedAfter",
)
.at_field(".spec.receivedBefore");

// Items of lists.

pub(crate) const DESTINATION_NAMES: CelRule = CelRule::each_pattern(
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "must be names of destinations: lower-case letters, digits and '-', with a letter or digit at both ends",
);

pub(crate) const EVENT_IDS: CelRule = CelRule::each_pattern(
    "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    "must be ids of events, such as 019a8c1e-7f6b-7d3a-9c51-2f0e4b6d8a90",
);
