//! Benchmarks: what one run costs the system under test, and what many such measurements amount to.
//!
//! scripts/bench starts the processes. It calls `bench measure` once for each measurement, which appends a [`CaseResult`] to
//! a file with one JSON object per line, and `bench report` at the end, which reads them all. The main figure is the processor
//! time of the system divided by that of the load generator in the same run: it depends less on the machine than rates do.

pub(crate) mod case_result;
pub(crate) mod comparison;
pub(crate) mod process_costs;
pub(crate) mod results_file;
pub(crate) mod statistics;
pub(crate) mod tables;

pub(crate) use case_result::{Build, CaseResult};
pub(crate) use process_costs::{CostMeter, SystemProcesses};
