//! The types of the Integration object, a file for each section of its spec.

mod defaults;
mod source;
pub mod integration;
pub mod verification;
pub mod scheme;
pub mod mapping;
pub mod handshake;
pub mod destination;
pub mod workers;
pub mod resources;
