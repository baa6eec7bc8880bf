//! The file with the results of a benchmark, and with the machine, versions and settings that they belong to.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::case_result::CaseResult;

/// The content of the file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BenchmarkResults<'a> {
    pub(crate) date: String,
    pub(crate) commit: &'a str,
    pub(crate) machine: Machine,
    pub(crate) versions: &'a Versions,
    pub(crate) settings: &'a BenchSettings,
    pub(crate) results: &'a [CaseResult],
}

/// The machine that everything runs on.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_mb: u64,
    kernel: String,
}

/// The versions of the datastores.
#[derive(Debug, Serialize, clap::Args)]
pub(crate) struct Versions {
    #[arg(long = "postgres-version", value_name = "VERSION")]
    postgres: String,
    #[arg(long = "redis-version", value_name = "VERSION")]
    redis: String,
    #[arg(long = "rabbitmq-version", value_name = "VERSION")]
    rabbitmq: String,
}

/// The settings of the benchmark.
#[derive(Debug, Serialize, clap::Args)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BenchSettings {
    /// Length of each measurement
    #[arg(long, value_name = "S")]
    seconds: u64,
    /// Length of the warm-up before each measurement
    #[arg(long, value_name = "S")]
    warmup_seconds: u64,
    /// Number of events in the history
    #[arg(long, value_name = "N")]
    history_events: u64,
    /// Days that the history covers
    #[arg(long, value_name = "N")]
    history_days: u64,
    /// Events are counted against a rate limit
    #[arg(long)]
    rate_limit: bool,
    /// Size of the body of each event
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    body_bytes: u64,
}

impl BenchmarkResults<'_> {
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).context("write the results")?;
        std::fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
    }
}

impl Machine {
    /// Describes this machine. Unknown values are empty.
    pub(crate) fn this() -> Machine {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = format!("{} {}", read("/proc/sys/kernel/ostype").trim(), release.trim());
        Machine::parse(&read("/proc/cpuinfo"), &read("/proc/meminfo"), cores, kernel)
    }

    fn parse(cpu_info: &str, memory_info: &str, cores: usize, kernel: String) -> Machine {
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kilobytes =
            value(memory_info, "MemTotal").and_then(|total| total.strip_suffix(" kB")?.parse().ok());
        Machine {
            cpu: value(cpu_info, "model name").unwrap_or_default(),
            cores,
            memory_mb: kilobytes.unwrap_or(0_u64) / 1024,
            kernel,
        }
    }
}

/// Returns the present time without fractions of a second.
pub(crate) fn date() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Appends a result to a file with one JSON object per line.
pub(crate) fn append(file: &Path, result: &CaseResult) -> anyhow::Result<()> {
    let line = serde_json::to_string(result).context("write the result")?;
    let mut output = File::options()
        .append(true)
        .create(true)
        .open(file)
        .with_context(|| format!("open {}", file.display()))?;
    writeln!(output, "{line}").with_context(|| format!("write {}", file.display()))
}

/// Reads a file with one JSON object per line.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<CaseResult>> {
    let input = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let results = BufReader::new(input).lines().map(|line| Ok(serde_json::from_str(&line?)?));
    results.collect::<anyhow::Result<_>>().with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::super::case_result::tests::result;
    use super::*;

    #[test]
    fn results_are_read_as_they_were_appended() {
        let file = std::env::temp_dir().join(format!("grapnel-bench-{}", crate::RunId::random().as_str()));
        let results = [result("accept-64", 1, None, 8.5, 1.5), result("calm-200", 2, None, 9.0, 2.0)];
        for result in &results {
            append(&file, result).expect("a line");
        }
        assert_eq!(read(&file).expect("two results"), results);
        std::fs::remove_file(&file).expect("it exists");
        assert!(read(&file).is_err());
    }

    #[test]
    fn the_machine_is_described_by_its_first_processor() {
        let cpu = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nprocessor\t: 1\nmodel name\t: B\n";
        let machine =
            Machine::parse(cpu, "MemTotal:        2048000 kB\nMemFree: 1 kB\n", 2, "Linux 6".to_owned());
        let expected = Machine {
            cpu: "A CPU @ 2 GHz".to_owned(),
            cores: 2,
            memory_mb: 2000,
            kernel: "Linux 6".to_owned(),
        };
        assert_eq!(machine, expected);
        assert_eq!(Machine::parse("", "", 0, String::new()), Machine::default());
    }
}
