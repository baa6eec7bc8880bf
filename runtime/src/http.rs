//! What all HTTP routes share.

pub mod envelope;
pub mod server;
