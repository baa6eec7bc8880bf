//! Why a step failed.

use grapnel_platform::queue::QueueError;

/// Why a call to a backend failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the API server")]
    Api(#[from] kube::Error),
    #[error("PostgreSQL")]
    Database(#[from] grapnel_store::Error),
    #[error("PostgreSQL is not usable")]
    Schema(#[source] SchemaError),
    #[error("RabbitMQ")]
    Queue(#[from] QueueError),
    #[error("{0} did not answer in time")]
    TimedOut(&'static str),
    #[error("{0} is not available")]
    Unavailable(&'static str),
    #[error("this process is no longer the leader")]
    NotLeading,
    #[error("a newer leader has taken over")]
    Superseded,
}

/// The schema is older than this program.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

impl CallError {
    /// Returns whether PostgreSQL is the reason.
    pub fn is_of_database(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Schema(_) | Self::TimedOut("PostgreSQL"))
    }

    /// A class from a bounded set, for metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Api(kube::Error::Api(status)) if status.code == 409 => "conflict",
            Self::Api(kube::Error::Api(_)) => "api_refused",
            Self::Api(_) => "api_unavailable",
            Self::Database(grapnel_store::Error::Deadline) => "timeout",
            Self::Database(_) | Self::Schema(_) => "database",
            Self::Queue(_) | Self::Unavailable(_) => "queue",
            Self::TimedOut(_) => "timeout",
            Self::NotLeading | Self::Superseded => "not_leading",
        }
    }
}
