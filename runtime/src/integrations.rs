//! The integrations that every request and every delivery reads.

pub mod cache;
pub mod secret_uses;
