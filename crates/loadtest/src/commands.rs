//! The commands of `grapnel-loadtest`.

pub mod bench;
pub mod run;

/// The exit code of a run whose report has faults, and of a failed command.
const EXIT_FAULT: u8 = 1;
const EXIT_USAGE: u8 = 2;
