//! The data plane of Grapnel.

pub mod probe;
