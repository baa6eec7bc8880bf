//! The results as tables for people.

use std::fmt::{self, Write};

use super::case_result::{Build, CaseResult};
use super::comparison::{BuildComparison, compare_builds, compare_costs, compare_rates};

/// The case whose verification is the most expensive, and the case that it is compared with.
const COSTLY_CASE: &str = "costly-64";
const COSTLY_REFERENCE: &str = "accept-64";

/// The cases with filled tables, and the case that they are compared with.
const FILLED_CASES: [&str; 2] = ["history-64", "keys-64"];
const FILLED_REFERENCE: &str = "end-to-end-64";

/// Writes everything that a benchmark prints. `bold` emphasizes the headings of a terminal.
pub(crate) fn write_tables(
    out: &mut impl Write,
    results: &[CaseResult],
    costly_provider: &str,
    bold: bool,
) -> fmt::Result {
    let tables = Tables { results, bold, case_width: if results.iter().any(has_build) { 22 } else { 15 } };
    tables.write_rates(out)?;
    tables.write_cpu(out)?;
    tables.write_memory(out)?;
    tables.write_builds(out)?;
    if let Some(percent) = compare_rates(results, COSTLY_CASE, COSTLY_REFERENCE) {
        writeln!(
            out,
            "\n{COSTLY_CASE} accepted {} % of {COSTLY_REFERENCE} ({costly_provider} and acme; median of {}, from {} to {} %)",
            percent.median, percent.count, percent.min, percent.max
        )?;
    }
    for case in FILLED_CASES {
        if let Some(ratio) = compare_costs(results, case, FILLED_REFERENCE) {
            writeln!(
                out,
                "\nsystem ÷ load of {case} is {:.3} of that of {FILLED_REFERENCE} (median of {}, from {:.3} to {:.3})",
                ratio.median, ratio.count, ratio.min, ratio.max
            )?;
        }
    }
    Ok(())
}

/// Returns a line about one result, for the time while the benchmark runs.
pub(crate) fn summary_line(result: &CaseResult) -> String {
    let delivered = result.delivered.as_ref().and_then(|delivered| delivered.per_second).unwrap_or(0.0);
    format!(
        "accepted {:.0}/s, delivered {:.0}/s, system ÷ load generator {}, ok: {}",
        result.accepted.per_second.floor(),
        delivered.floor(),
        decimals(result.system_over_load, 2),
        result.ok
    )
}

/// Returns the faults of all ledgers that do not add up.
pub(crate) fn faults(results: &[CaseResult]) -> Vec<String> {
    let faulty = results.iter().filter(|result| !result.ok);
    faulty
        .map(|result| format!("{} (round {}): {}", label(result), result.round, result.faults.join("; ")))
        .collect()
}

struct Tables<'a> {
    results: &'a [CaseResult],
    bold: bool,
    case_width: usize,
}

impl Tables<'_> {
    fn write_rates(&self, out: &mut impl Write) -> fmt::Result {
        let row = |columns: [&str; 7]| {
            let [accepted, p50, p99, delivered, d50, d99, counts] = columns;
            format!(" {accepted:>10} {p50:>8} {p99:>8} {delivered:>12} {d50:>8} {d99:>8}   {counts}")
        };
        let columns = ["accepted/s", "p50", "p99", "delivered/s", "p50", "p99", "lost/duplicate/phantom"];
        self.write_heading(out, "milliseconds", &row(columns))?;
        for result in self.results {
            let accepted = &result.accepted;
            let delivered = result.delivered.as_ref();
            let counts = delivered
                .map(|events| format!("{}/{}/{}", events.lost, events.duplicates, events.phantom))
                .unwrap_or_else(dash);
            let columns = [
                decimals(Some(accepted.per_second.floor()), 0),
                decimals(Some(accepted.p50_ms), 2),
                decimals(Some(accepted.p99_ms), 2),
                decimals(delivered.and_then(|events| events.per_second).map(f64::floor), 0),
                decimals(delivered.and_then(|events| events.p50_ms), 2),
                decimals(delivered.and_then(|events| events.p99_ms), 2),
                counts,
            ];
            self.write_row(out, result, &row(columns.each_ref().map(String::as_str)))?;
        }
        Ok(())
    }

    fn write_cpu(&self, out: &mut impl Write) -> fmt::Result {
        let row = |columns: [&str; 9]| {
            let [api, worker, postgres, rabbitmq, redis, load, system, ratio, others] = columns;
            format!(
                " {api:>8} {worker:>8} {postgres:>9} {rabbitmq:>9} {redis:>8} {load:>8} {system:>8} {ratio:>14} {others:>8}"
            )
        };
        let columns =
            ["api", "worker", "postgres", "rabbitmq", "redis", "load", "system", "system ÷ load", "others"];
        self.write_heading(out, "CPU ms/event", &row(columns))?;
        for result in self.results {
            let cpu = result.cpu_ms_per_event.as_ref();
            let [api, worker, postgres, rabbitmq, redis] = match cpu {
                Some(cpu) => cpu.system.values().map(Some),
                None => [None; 5],
            };
            let [api, worker, postgres, rabbitmq, redis, load, system] = [
                api,
                worker,
                postgres,
                rabbitmq,
                redis,
                cpu.map(|cpu| cpu.load_generator),
                cpu.map(|cpu| cpu.system_total()),
            ]
            .map(|ms| decimals(ms, 3));
            let ratio = decimals(result.system_over_load, 2);
            let others = result.others_percent.map_or_else(dash, |percent| format!("{percent}%"));
            let columns = [&*api, &worker, &postgres, &rabbitmq, &redis, &load, &system, &ratio, &others];
            self.write_row(out, result, &row(columns))?;
        }
        Ok(())
    }

    fn write_memory(&self, out: &mut impl Write) -> fmt::Result {
        let row = |columns: [&str; 5]| {
            let [api, worker, postgres, rabbitmq, redis] = columns;
            format!(" {api:>8} {worker:>8} {postgres:>9} {rabbitmq:>9} {redis:>8}")
        };
        let columns = ["api", "worker", "postgres", "rabbitmq", "redis"];
        self.write_heading(out, "memory in MB", &row(columns))?;
        for result in self.results {
            let columns = result.memory_mb.values().map(|megabytes| megabytes.to_string());
            self.write_row(out, result, &row(columns.each_ref().map(String::as_str)))?;
        }
        Ok(())
    }

    /// Writes nothing unless two builds were compared.
    fn write_builds(&self, out: &mut impl Write) -> fmt::Result {
        let comparisons = compare_builds(self.results);
        if comparisons.is_empty() {
            return Ok(());
        }
        let columns = format!(
            " {:>8} {:>8} {:>15}   {:<16} {:>5}",
            "before", "after", "after ÷ before", "range", "pairs"
        );
        self.write_heading(out, "system ÷ load", &columns)?;
        for BuildComparison { case, before, after, ratio } in comparisons {
            let range = format!("{:.3} to {:.3}", ratio.min, ratio.max);
            writeln!(
                out,
                "{case:<width$} {before:>8.2} {after:>8.2} {:>15.3}   {range:<16} {:>5}",
                ratio.median,
                ratio.count,
                width = self.case_width
            )?;
        }
        Ok(())
    }

    fn write_heading(&self, out: &mut impl Write, name: &str, columns: &str) -> fmt::Result {
        let (start, end) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        writeln!(out, "\n{start}{name:<width$}{columns}{end}", width = self.case_width)
    }

    fn write_row(&self, out: &mut impl Write, result: &CaseResult, columns: &str) -> fmt::Result {
        writeln!(out, "{:<width$}{columns}", label(result), width = self.case_width)
    }
}

fn has_build(result: &CaseResult) -> bool {
    result.build.is_some()
}

fn label(result: &CaseResult) -> String {
    match result.build {
        None => result.case.clone(),
        Some(Build::Before) => format!("{} before", result.case),
        Some(Build::After) => format!("{} after", result.case),
    }
}

fn decimals(value: Option<f64>, count: usize) -> String {
    value.map_or_else(dash, |value| format!("{value:.count$}"))
}

/// An absent value.
fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::case_result::tests::result;
    use super::*;

    fn tables(results: &[CaseResult]) -> String {
        let mut text = String::new();
        write_tables(&mut text, results, "twilio", false).expect("a text can be written to");
        text
    }

    #[test]
    fn a_benchmark_prints_rates_costs_and_memory() {
        let mut accept = result("accept-64", 1, None, 8.5, 11_243.9);
        (accept.delivered, accept.others_percent) = (None, None);
        let costly = result("costly-64", 1, None, 9.0, 10_119.51);
        insta::assert_snapshot!(tables(&[accept, costly]));
    }

    #[test]
    fn a_case_with_filled_tables_is_compared_with_the_one_in_turn_with_it() {
        let results = [result("end-to-end-64", 1, None, 8.0, 1.0), result("history-64", 1, None, 8.2, 1.0)];
        let text = tables(&results);
        let line = "system ÷ load of history-64 is 1.025 of that of end-to-end-64 (median of 1, from 1.025 to 1.025)";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_comparison_prints_the_ratios_of_its_pairs() {
        let (before, after) = (Some(Build::Before), Some(Build::After));
        let results = [
            result("end-to-end-64", 1, before, 8.0, 6_000.0),
            result("end-to-end-64", 1, after, 8.2, 6_000.0),
            result("end-to-end-64", 2, after, 8.0, 6_000.0),
            result("end-to-end-64", 2, before, 8.1, 6_000.0),
        ];
        insta::assert_snapshot!(tables(&results));
    }

    #[test]
    fn only_ledgers_that_do_not_add_up_have_faults() {
        let mut bad = result("calm-200", 2, Some(Build::After), 8.0, 1.0);
        (bad.ok, bad.faults) = (false, vec!["1 lost".to_owned(), "2 phantom".to_owned()]);
        let good = result("calm-200", 1, None, 8.0, 1.0);
        assert_eq!(faults(&[good, bad]), ["calm-200 after (round 2): 1 lost; 2 phantom"]);
    }

    #[test]
    fn the_line_of_a_result_has_whole_rates() {
        let line = summary_line(&result("calm-200", 1, None, 8.5, 199.99));
        assert_eq!(line, "accepted 199/s, delivered 998/s, system ÷ load generator 8.50, ok: true");
    }
}
