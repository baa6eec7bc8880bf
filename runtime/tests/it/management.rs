//! The management API on a real PostgreSQL, through its router.
//!
//! Every test has a database of its own. Events are stored, claimed and recorded by the same statements as in
//! production.

mod harness;

mod access;
mod openapi;
mod queries;
mod event_lists;
mod capped_lists;
mod event_statuses;
mod event_record;
mod erasure;
mod filtered;
mod finding;
mod indexed_events;
mod indexed_attempts;
mod other_lists;
mod derived_entries;
mod integration_status;
mod stored_columns;
mod test_events;
mod replay;
mod replay_outcome;
mod failures;
mod sink;
mod stream;
