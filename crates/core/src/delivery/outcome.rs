//! The outcome of an attempt.

use std::borrow::Cow;
use std::time::Duration;

/// What came of an attempt. Bodies are at most 16 KiB of text without NUL; messages are for operators and carry no
/// URL, address or secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered 2xx.
    Succeeded {
        /// The status of the answer.
        status: u16,
        /// Its body, as far as it was read.
        body: String,
    },
    /// The receiver answered neither 2xx nor 410. Redirects are among these.
    Refused {
        /// The status of the answer.
        status: u16,
        /// Its body, as far as it was read.
        body: String,
        /// `Retry-After` as the receiver sent it, not bounded, with whichever status.
        retry_after: Option<Duration>,
    },
    /// The receiver answered 410: this destination wants nothing any more.
    Gone {
        /// The body of the answer, as far as it was read.
        body: String,
    },
    /// No answer: the name, the connection, TLS, or what came was not HTTP.
    Unreachable {
        /// The cause.
        message: String,
    },
    /// A deadline passed before the headers of an answer came.
    TimedOut {
        /// Which one.
        message: String,
    },
    /// The egress policy does not permit the address. An attempt like any that failed: the name may be mended.
    Denied {
        /// The class of the address.
        message: String,
    },
    /// Nothing was sent for a reason of ours. Not an attempt.
    NotSent {
        /// The reason.
        message: String,
    },
}

impl Outcome {
    /// The status of the answer, when one came.
    pub fn http_status(&self) -> Option<u16> {
        match self {
            Self::Succeeded { status, .. } | Self::Refused { status, .. } => Some(*status),
            Self::Gone { .. } => Some(http::StatusCode::GONE.as_u16()),
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Denied { .. } | Self::NotSent { .. } => {
                None
            }
        }
    }

    /// The body of the answer, when one came.
    pub fn response_body(&self) -> Option<&str> {
        match self {
            Self::Succeeded { body, .. } | Self::Refused { body, .. } | Self::Gone { body } => Some(body),
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Denied { .. } | Self::NotSent { .. } => {
                None
            }
        }
    }

    /// What went wrong in one line; `None` on success.
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
