//! The commands other than `run`.

pub mod explain;
pub mod uninstall;
