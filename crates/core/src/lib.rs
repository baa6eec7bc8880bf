//! The meaning of an Integration, without I/O.
//!
//! What a request must look like, which event it is, what is sent to whom, and what happens to a delivery afterwards are all
//! functions of values. Nothing here opens a socket, reads a clock or speaks to a database.

pub mod error_chain;
pub mod ids;

pub mod request;
pub mod constant_time;
pub mod host_pattern;
pub mod verification;
pub mod handshake;
pub mod mapping;
pub mod payload;

pub mod preset;
pub mod compiled_provider;
pub mod sealing;
pub mod secrets;
pub mod secret_uses;
pub mod manifests;
pub mod integration;

pub mod hint;
pub mod delivery;
