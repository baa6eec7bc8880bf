//! The compiled integrations that requests and deliveries use.

pub mod cache;
pub mod secret_uses;
