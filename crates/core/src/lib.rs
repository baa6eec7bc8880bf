//! The meaning of an Integration, without I/O.
//!
//! The requests that are accepted, which event a request is, what is sent to which destination, and what happens to a delivery
//! afterwards are all functions of values. Nothing here opens a socket, reads a clock or talks to a database.

pub mod error_chain;
pub mod ids;

pub mod request;
pub mod constant_time;
pub mod host_pattern;
pub mod verification;
pub mod handshake;
pub mod header_values;
pub mod payload;
pub mod mapping;
pub mod filter;

pub mod preset;
pub mod resolved_provider;
pub mod compiled_provider;

pub mod hint;
pub mod delivery;
pub mod replay;

pub mod sealing;
pub mod secrets;
pub mod secret_uses;
pub mod integration;
pub mod manifests;
