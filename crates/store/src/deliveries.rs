//! The deliveries: every statement that writes one is in this folder.

pub mod claim;
pub mod due;
pub mod record;
