//! The statements about events, one file each.
//!
//! Each walk follows an index in the order of the list and tests what it meets with correlated scalar subqueries.
//! PostgreSQL never turns those into joins, so a plan cannot flip to reading whole tables: the walk ends as soon as
//! the page is full. docs/benchmarks.md has the cost of each.
//!
//! They repeat each other, so that each can be read and run by itself. The tests here hold the repeated parts together.

macro_rules! statement {
    ($name:literal) => {
        include_str!(concat!("event_sql/", $name, ".sql"))
    };
}

pub(super) const EVENTS_BY_ID_DESC: &str = statement!("events_by_id_desc");
pub(super) const EVENTS_BY_ID_ASC: &str = statement!("events_by_id_asc");
pub(super) const FAILED_BY_ID_DESC: &str = statement!("failed_by_id_desc");
pub(super) const FAILED_BY_ID_ASC: &str = statement!("failed_by_id_asc");
pub(super) const FILTERED_BY_ID_DESC: &str = statement!("filtered_by_id_desc");
pub(super) const FILTERED_BY_ID_ASC: &str = statement!("filtered_by_id_asc");
pub(super) const OPEN_BY_ID_DESC: &str = statement!("open_by_id_desc");
pub(super) const OPEN_BY_ID_ASC: &str = statement!("open_by_id_asc");
pub(super) const EVENTS_BY_OCCURRED_AT_DESC: &str = statement!("events_by_occurred_at_desc");
pub(super) const EVENTS_BY_OCCURRED_AT_ASC: &str = statement!("events_by_occurred_at_asc");
pub(super) const MATCHING_EVENTS: &str = statement!("matching_events");
pub(super) const MATCHING_FAILED: &str = statement!("matching_failed");
pub(super) const MATCHING_FILTERED: &str = statement!("matching_filtered");
pub(super) const MATCHING_OPEN: &str = statement!("matching_open");
pub(super) const MORE_PROCESSED: &str = statement!("more_processed");
pub(super) const BOUNDS_OF_OPEN: &str = statement!("bounds_of_open");
pub(super) const BOUNDS_OF_FAILED: &str = statement!("bounds_of_failed");
pub(super) const BOUNDS_OF_FILTERED: &str = statement!("bounds_of_filtered");
pub(super) const LOAD_EVENTS: &str = statement!("load_events");
pub(super) const LOAD_EVENT: &str = statement!("load_event");
pub(super) const EVENTS_OF_REQUEST: &str = statement!("events_of_request");
pub(super) const LOAD_PROCESSING: &str = statement!("load_processing");

#[cfg(test)]
mod tests {
    use super::super::TOTAL_CAP;
    use super::*;
    use crate::deliveries::is_filtered;
    use crate::events::index::idempotency_key;

    const ASCENDING: [&str; 5] =
        [EVENTS_BY_ID_ASC, FAILED_BY_ID_ASC, FILTERED_BY_ID_ASC, OPEN_BY_ID_ASC, EVENTS_BY_OCCURRED_AT_ASC];
    const DESCENDING: [&str; 5] = [
        EVENTS_BY_ID_DESC,
        FAILED_BY_ID_DESC,
        FILTERED_BY_ID_DESC,
        OPEN_BY_ID_DESC,
        EVENTS_BY_OCCURRED_AT_DESC,
    ];
    const MATCHING: [&str; 4] = [MATCHING_EVENTS, MATCHING_FAILED, MATCHING_FILTERED, MATCHING_OPEN];
    const LOADING: [&str; 3] = [LOAD_EVENTS, LOAD_EVENT, LOAD_PROCESSING];

    /// The statement on one line, without its comments.
    fn flat(sql: &str) -> String {
        let code: Vec<_> = sql.lines().map(str::trim).filter(|line| !line.starts_with("--")).collect();
        code.join(" ")
    }

    #[track_caller]
    fn assert_repeated(part: &str, times: usize, statements: &[&str]) {
        for sql in statements {
            assert_eq!(flat(sql).matches(part).count(), times, "{sql}");
        }
    }

    #[test]
    fn ascending_and_descending_walks_differ_only_in_the_direction() {
        for (ascending, descending) in ASCENDING.into_iter().zip(DESCENDING) {
            let mut turned = flat(descending).replace("DESC", "ASC").replace("_desc", "_asc");
            for (before, after) in
                [("e.id < $7", "e.id > $7"), ("d.event_id < $7", "d.event_id > $7"), ("e.id) <", "e.id) >")]
            {
                turned = turned.replace(before, after);
            }
            assert_eq!(turned, flat(ascending));
        }
    }

    #[test]
    fn filters_are_the_same_everywhere() {
        let filters = "($1::text IS NULL OR e.provider = $1) \
            AND ($2::text IS NULL OR e.event_type = $2) \
            AND ($3::text IS NULL OR e.subject ILIKE $3) \
            AND ($4::timestamptz IS NULL OR e.occurred_at >= $4) \
            AND ($5::timestamptz IS NULL OR e.occurred_at < $5)";
        assert_repeated(filters, 3, &[EVENTS_BY_ID_DESC]);
        assert_repeated(filters, 1, &[FAILED_BY_ID_DESC, FILTERED_BY_ID_DESC]);
        assert_repeated(filters, 1, &[OPEN_BY_ID_DESC, EVENTS_BY_OCCURRED_AT_DESC]);
        assert_repeated(filters, 1, &MATCHING);
        let integrations =
            |of: &str, n: u8| format!("(${n}::uuid[] IS NULL OR {of}.integration_id = ANY(${n}))");
        assert_repeated(&integrations("e", 13), 3, &[EVENTS_BY_ID_DESC]);
        assert_repeated(&integrations("e", 13), 1, &[EVENTS_BY_OCCURRED_AT_DESC]);
        assert_repeated(
            &integrations("d", 13),
            1,
            &[FAILED_BY_ID_DESC, FILTERED_BY_ID_DESC, OPEN_BY_ID_DESC],
        );
        assert_repeated(&integrations("e", 8), 1, &[MATCHING_EVENTS]);
        assert_repeated(&integrations("d", 8), 1, &[MATCHING_FAILED, MATCHING_FILTERED, MATCHING_OPEN]);
    }

    #[test]
    fn an_event_has_the_same_status_everywhere() {
        let status = |delivery: &str| {
            format!(
                "CASE WHEN COALESCE(bool_and({delivery}.status = 'succeeded'), true) THEN 'processed' \
                ELSE COALESCE(max({delivery}.status) FILTER (WHERE {delivery}.finished_at IS NULL)::text, 'failed') END"
            )
        };
        assert_repeated(&status("o"), 3, &[EVENTS_BY_ID_DESC]);
        assert_repeated(&status("o"), 1, &[EVENTS_BY_OCCURRED_AT_DESC, MATCHING_EVENTS]);
        assert_repeated(&status("d"), 1, &LOADING);
    }

    #[test]
    fn counted_events_are_those_that_the_walks_meet() {
        let open = "d.finished_at IS NULL AND d.status::text = $6 \
            AND ( SELECT max(o.status) = d.status \
            AND min(o.destination) FILTER (WHERE o.status = d.status) = d.destination \
            FROM deliveries o WHERE o.event_id = d.event_id AND o.finished_at IS NULL )";
        assert_repeated(open, 1, &[OPEN_BY_ID_DESC, MATCHING_OPEN]);
        let failed = "d.finished_at IS NOT NULL AND d.last_error IS NOT NULL \
            AND ( SELECT bool_and(o.finished_at IS NOT NULL) \
            AND min(o.destination) FILTER (WHERE o.status = 'failed') = d.destination \
            FROM deliveries o WHERE o.event_id = d.event_id )";
        assert_repeated(failed, 1, &[FAILED_BY_ID_DESC, MATCHING_FAILED]);
        let is_filtered = |delivery: &str| {
            format!(
                "{delivery}finished_at IS NOT NULL AND {delivery}last_error IS NULL AND {delivery}attempts = 0"
            )
        };
        let filtered = format!(
            "d.event_id >= filtered_since() AND {} AND ( SELECT min(o.destination) = d.destination FROM deliveries o \
            WHERE o.event_id = d.event_id AND {} )",
            is_filtered("d."),
            is_filtered("o.")
        );
        assert_repeated(&filtered, 1, &[FILTERED_BY_ID_DESC, MATCHING_FILTERED]);
        assert_repeated(&is_filtered("o."), 1, &[EVENTS_BY_OCCURRED_AT_DESC]);
        assert_repeated(&is_filtered(""), 2, &[BOUNDS_OF_FILTERED]);
        assert!(is_filtered!().contains(&is_filtered("d.")));
    }

    #[test]
    fn counts_stop_at_one_more_than_the_cap() {
        assert_repeated(&format!("LIMIT {}", TOTAL_CAP + 1), 1, &MATCHING);
        assert_repeated(&format!("count(*) <= {TOTAL_CAP} "), 2, &MATCHING);
        assert_repeated(&format!("LIMIT {} ", TOTAL_CAP + 1), 2, &[MORE_PROCESSED]);
        assert_repeated(&format!("deliveries + {}", TOTAL_CAP + 1), 2, &[MORE_PROCESSED]);
    }

    #[test]
    fn a_key_that_is_not_stored_is_put_together_everywhere() {
        assert_repeated(idempotency_key!("e"), 1, &[LOAD_EVENT]);
    }

    #[test]
    fn every_statement_names_itself() {
        let names = [
            (EVENTS_BY_ID_DESC, "events_by_id_desc"),
            (FAILED_BY_ID_DESC, "failed_by_id_desc"),
            (FILTERED_BY_ID_DESC, "filtered_by_id_desc"),
            (OPEN_BY_ID_DESC, "open_by_id_desc"),
            (EVENTS_BY_OCCURRED_AT_DESC, "events_by_occurred_at_desc"),
            (MATCHING_EVENTS, "matching_events"),
            (MATCHING_FAILED, "matching_failed"),
            (MATCHING_FILTERED, "matching_filtered"),
            (MATCHING_OPEN, "matching_open"),
            (MORE_PROCESSED, "more_processed"),
            (BOUNDS_OF_OPEN, "bounds_of_open"),
            (BOUNDS_OF_FAILED, "bounds_of_failed"),
            (BOUNDS_OF_FILTERED, "bounds_of_filtered"),
            (LOAD_EVENTS, "load_events"),
            (LOAD_EVENT, "load_event"),
            (EVENTS_OF_REQUEST, "events_of_request"),
            (LOAD_PROCESSING, "load_processing"),
        ];
        for (sql, name) in names {
            assert!(sql.starts_with(&format!("/* views::{name} */\n")), "{name}");
        }
    }
}
