//! Distributions of latencies.

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;

/// A distribution of latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// Number of values.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

impl Percentiles {
    pub(crate) fn of(latency_us: &Histogram<u64>) -> Percentiles {
        let ms = |quantile| latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles {
            count: latency_us.len(),
            p50: ms(0.5),
            p90: ms(0.9),
            p99: ms(0.99),
            p999: ms(0.999),
            max: latency_us.max() as f64 / 1000.0,
        }
    }
}

/// Returns a histogram of microseconds up to an hour, with three significant digits.
pub(crate) fn latency_histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).context("create a histogram")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latency_us = latency_histogram().expect("a histogram");
        for value in 1..=1000 {
            latency_us.saturating_record(value * 1000);
        }
        latency_us.saturating_record(u64::MAX);
        let percentiles = Percentiles::of(&latency_us);
        assert_eq!(percentiles.count, 1001);
        assert!((percentiles.p50 - 501.0).abs() < 1.0, "{percentiles:?}");
        assert!((percentiles.p99 - 991.0).abs() < 1.0, "{percentiles:?}");
        assert!(percentiles.max >= 3_600_000.0, "{percentiles:?}");
    }
}
