//! The clock against which the age of a signature is measured.
//!
//! It is the machine's clock, except in development, where it may be stopped: a webhook that was captured yesterday can
//! then be sent again with its original signature. Everything else that needs the time calls [`Timestamp::now`]: a stopped
//! clock would stop leases, rate limits and ids as well. `grapnel-core` reads no clock; its clippy.toml enforces that.

use jiff::Timestamp;

/// The machine's clock, or a fixed time.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerificationClock(Option<Timestamp>);

impl VerificationClock {
    /// Returns a clock that always shows this time.
    pub fn stopped_at(moment: Timestamp) -> Self {
        Self(Some(moment))
    }

    /// Returns the time to verify against.
    pub fn now(&self) -> Timestamp {
        self.0.unwrap_or_else(Timestamp::now)
    }
}
