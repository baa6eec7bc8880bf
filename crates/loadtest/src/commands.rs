//! The commands of `grapnel-loadtest`.

use std::fmt::Display;

use anyhow::Context;
use serde::Serialize;

pub mod bench;
pub mod replay;
pub mod run;

/// The exit code of a run whose report has faults, and of a failed command.
const EXIT_FAULT: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// Prints a report on standard output.
fn print_report(report: &(impl Display + Serialize), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report).context("write the report")?);
    } else {
        print!("{report}");
    }
    Ok(())
}
