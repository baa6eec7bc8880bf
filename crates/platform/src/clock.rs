//! The clock that the age of a webhook's timestamp is measured by.
//!
//! It is the machine's, except in development, where it may stand still: a webhook that was captured yesterday can then be
//! sent again with the signature that it had.

use jiff::Timestamp;

/// The machine's clock, or a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock(Option<Timestamp>);

impl Clock {
    /// A clock that stands still.
    pub fn stopped_at(moment: Timestamp) -> Self {
        Self(Some(moment))
    }

    pub fn now(&self) -> Timestamp {
        self.0.unwrap_or_else(Timestamp::now)
    }
}
