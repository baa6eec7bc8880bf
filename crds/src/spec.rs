//! The types of the objects: a file for each section of the spec of an Integration, and one for that of a Replay.

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
pub mod replay;
