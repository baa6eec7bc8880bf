//! How a statement can fail, sorted by what a client should do about it.

use std::borrow::Cow;
use std::time::Duration;

use thiserror::Error;
use uuid::Uuid;

/// How long one request's statements may take together. The server is told the same (`statement_timeout`), so that it
/// stops working for a client which was already answered.
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(10);

/// Why a statement gave no answer.
#[derive(Debug, Error)]
pub enum StoreFailure {
    /// The deadline passed: the question was too expensive, or the server is too busy.
    #[error("statement exceeded its deadline")]
    Deadline,
    /// The database cannot be reached or does not take work now.
    #[error("database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// A column that is not the JSON it must be. `id` is the row's.
    #[error("impossible JSON in {table}.{column} of {id}")]
    Corrupt {
        table: &'static str,
        column: &'static str,
        id: Uuid,
        #[source]
        source: serde_json::Error,
    },
    /// A column with a value that this version does not know. `id` is the row's.
    #[error("impossible value in {table}.{column} of {id}")]
    Unknown { table: &'static str, column: &'static str, id: Uuid },
    /// Anything else: a fault of ours.
    #[error("statement failed")]
    Statement(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreFailure {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|database| database.code()).map(Cow::into_owned);
        let Some(code) = code else {
            return match error {
                sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
                other => Self::Statement(other),
            };
        };
        // SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html: query_canceled is the statement
        // timeout. Class 08 is a lost connection, 53 a lack of connections, memory or disk, 57P0x a server that shuts
        // down or starts. 55P03 (lock not available), 40xxx (deadlock, serialization) and 25006 (a standby) pass.
        match code.as_str() {
            "57014" => Self::Deadline,
            "55P03" | "25006" => Self::Unavailable(error),
            code if ["08", "40", "53", "57P"].iter().any(|class| code.starts_with(class)) => {
                Self::Unavailable(error)
            }
            _ => Self::Statement(error),
        }
    }
}

impl StoreFailure {
    /// Whether two transactions got in each other's way, and the same transaction may succeed when it is run again.
    pub fn is_collision(&self) -> bool {
        let (Self::Unavailable(error) | Self::Statement(error)) = self else { return false };
        let code = error.as_database_error().and_then(|database| database.code());
        matches!(code.as_deref(), Some("40P01" | "40001"))
    }
}

/// Bounds the whole of a request's work on the database, a server that does not answer at all included.
pub async fn within_deadline<T>(
    work: impl Future<Output = Result<T, StoreFailure>>,
) -> Result<T, StoreFailure> {
    match tokio::time::timeout(STATEMENT_DEADLINE, work).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(StoreFailure::Deadline),
    }
}
