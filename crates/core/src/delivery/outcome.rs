//! The outcome of an attempt.

use std::borrow::Cow;
use std::time::Duration;

/// The outcome of an attempt. Bodies are at most 16 KiB of text without NUL; messages are for operators and contain no
/// URL, address or secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver answered 2xx.
    Succeeded {
        /// The status of the response.
        status: u16,
        /// Its body, as far as it was read.
        body: String,
    },
    /// The receiver answered neither 2xx nor 410. Redirects are among these.
    Refused {
        /// The status of the response.
        status: u16,
        /// Its body, as far as it was read.
        body: String,
        /// `Retry-After` as the receiver sent it, not bounded, with any status.
        retry_after: Option<Duration>,
    },
    /// The receiver answered 410: this destination no longer accepts deliveries.
    Gone {
        /// The body of the response, as far as it was read.
        body: String,
    },
    /// There was no response: a failure of the name, the connection, TLS or HTTP.
    Unreachable {
        /// The cause.
        message: String,
    },
    /// A deadline passed before the headers of a response arrived.
    TimedOut {
        /// The deadline that passed.
        message: String,
    },
    /// The egress policy does not permit the address. It counts as a failed attempt: the name may be corrected.
    Denied {
        /// The class of the address.
        message: String,
    },
    /// Nothing was sent because of a failure of ours. Not an attempt.
    NotSent {
        /// The reason.
        message: String,
    },
}

impl AttemptOutcome {
    /// Returns the status of the response, if there was one.
    pub fn http_status(&self) -> Option<u16> {
        match self {
            Self::Succeeded { status, .. } | Self::Refused { status, .. } => Some(*status),
            Self::Gone { .. } => Some(http::StatusCode::GONE.as_u16()),
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Denied { .. } | Self::NotSent { .. } => {
                None
            }
        }
    }

    /// Returns the body of the response, if there was one.
    pub fn response_body(&self) -> Option<&str> {
        match self {
            Self::Succeeded { body, .. } | Self::Refused { body, .. } | Self::Gone { body } => Some(body),
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Denied { .. } | Self::NotSent { .. } => {
                None
            }
        }
    }

    /// Describes the failure in one line; `None` on success.
    pub fn error_message(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Succeeded { .. } => None,
            Self::Refused { status, .. } => Some(format!("the receiver answered {status}").into()),
            Self::Gone { .. } => Some("the receiver answered 410: the destination is gone".into()),
            Self::Unreachable { message }
            | Self::TimedOut { message }
            | Self::Denied { message }
            | Self::NotSent { message } => Some(message.into()),
        }
    }
}
