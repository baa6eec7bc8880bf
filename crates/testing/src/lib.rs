//! Shared by the tests of Grapnel's crates; part of no program.

pub mod certificates;
pub mod secret;
