//! PostgreSQL, the only source of truth: every table, and all SQL.
//!
//! A module is a table or a family of them; `views` has the reads of the management API. Every statement is static text and
//! begins with the path of its function, which shows in `pg_stat_activity`. The hot statements (`events::store`,
//! `deliveries::claim`, `deliveries::record`) are group commits: one multi-row statement for a whole batch.
//!
//! Invariants: every use has a deadline ([`Database`]); no caller sees a pool, a connection or an error of the
//! driver; the caller or a constraint decides, and the statements only compare. Modules use only those that are listed
//! above them.

mod error;
mod sessions;
mod database;
mod dedicated_connection;
mod claim_connections;
mod columns;
mod daily_statement;
mod index_entry;
mod stored_form;
pub mod packed_headers;
pub mod partitions;
pub mod migrate;

pub mod audit;
mod destinations;
mod replay_settlement;
pub mod deliveries;
pub mod claimants;
pub mod dispatcher_lease;
pub mod worker_heartbeats;
pub mod events;
pub mod integrations;
pub mod retention;
pub mod replays;
pub mod erasure;
pub mod test_events;
pub mod captured_secrets;
pub mod secret_uses;
pub mod filter_errors;
mod minute_rows;
pub mod traffic;
pub mod worker_minutes;
pub mod console_sessions;
pub mod views;
pub mod replay_jobs;
pub mod replay_objects;

pub use claim_connections::ClaimConnections;
pub use database::{Database, InvalidUrl};
pub use dedicated_connection::DedicatedConnection;
pub use error::{Error, Result};
pub use stored_form::StoredForm;
