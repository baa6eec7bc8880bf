//! PostgreSQL, the only truth: every table, and all SQL.
//!
//! A module is a table or a family of them; `views` has what the management API reads. Every statement is static text and
//! begins with the name of its function, which shows in `pg_stat_activity`. The hot statements (`events::store`,
//! `deliveries::claim`, `deliveries::record`) are group commits: one multi-row statement for a whole batch.
//!
//! What always holds: every use has a deadline ([`Database`]); no caller sees a pool, a connection or an error of the
//! driver; what is decided is decided by the caller or by a constraint, and the statements only compare.

mod error;
mod database;
mod dedicated_connection;
mod columns;
pub mod migrate;
pub mod partitions;

pub mod integrations;
pub mod events;
pub mod deliveries;
pub mod replays;
pub mod captured_secrets;
pub mod secret_uses;
pub mod audit;
pub mod views;

pub use database::{Database, InvalidUrl};
pub use dedicated_connection::DedicatedConnection;
pub use error::{Error, Result};
