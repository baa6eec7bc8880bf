//! The parts that all HTTP routes share.

pub mod envelope;
pub(crate) mod fallback;
pub(crate) mod server;

/// The header that carries the key of the management routes.
pub const KEY_HEADER: &str = "x-internal-api-key";

/// The wait that a client is asked for when the service is unavailable.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 5;
