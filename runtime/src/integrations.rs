//! The compiled integrations that requests and deliveries use.

pub(crate) mod cache;
pub(crate) mod secret_uses;
