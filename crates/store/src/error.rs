//! The errors of the store, classified by how a caller should react.

use std::borrow::Cow;

use thiserror::Error;
use uuid::Uuid;

/// A statement that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The deadline passed: the statement was too expensive, the server is too busy, or the connection hangs.
    #[error("PostgreSQL did not answer within the deadline")]
    Deadline,
    /// The database cannot be reached, or does not accept work now.
    #[error("PostgreSQL is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// The session is read-only: it is on a standby, or writes are switched off.
    #[error("PostgreSQL accepts no writes")]
    ReadOnly,
    /// A value that this version does not know: another version wrote the row, or it is damaged. `id` is the row's.
    #[error("invalid value in {table}.{column} of {id}")]
    Corrupt { table: &'static str, column: &'static str, id: Uuid },
    /// Anything else: the rows or the statement are at fault.
    #[error("statement failed")]
    Statement(#[source] sqlx::Error),
}

/// The result of a use of the store.
pub type Result<T> = std::result::Result<T, Error>;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let Some(code) = sqlstate(&error) else {
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
        // down or starts. 55P03 (lock not available) and 40xxx (deadlock, serialization) pass. 25006 is a write in a session that only
        // reads.
        match &*code {
            "57014" => Self::Deadline,
            "25006" => Self::ReadOnly,
            "55P03" => Self::Unavailable(error),
            code if ["08", "40", "53", "57P"].iter().any(|class| code.starts_with(class)) => {
                Self::Unavailable(error)
            }
            _ => Self::Statement(error),
        }
    }
}

impl Error {
    /// Whether the rows themselves are at fault (bad data, a violated constraint), so that sending them again cannot help.
    pub fn is_data_error(&self) -> bool {
        let Self::Statement(error) = self else { return false };
        sqlstate(error).is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    }

    /// Whether the database answered, so that sending the same again cannot help.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Statement(_) | Self::Corrupt { .. })
    }

    /// Whether two transactions got in each other's way, and the same transaction may succeed when it is run again.
    pub(crate) fn is_collision(&self) -> bool {
        let (Self::Unavailable(error) | Self::Statement(error)) = self else { return false };
        matches!(sqlstate(error).as_deref(), Some("40P01" | "40001"))
    }

    /// Whether the connection is lost or of no use any more, which probably means that the others are too.
    pub(crate) fn is_connection_lost(&self) -> bool {
        match self {
            Self::ReadOnly => true,
            Self::Unavailable(error) => match sqlstate(error) {
                Some(code) => code.starts_with("08") || code.starts_with("57P"),
                None => matches!(
                    error,
                    sqlx::Error::Io(_)
                        | sqlx::Error::Tls(_)
                        | sqlx::Error::Protocol(_)
                        | sqlx::Error::PoolTimedOut
                ),
            },
            _ => false,
        }
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<Cow<'static, str>> {
    let code = error.as_database_error().and_then(|database| database.code());
    code.map(|code| Cow::Owned(code.into_owned()))
}
