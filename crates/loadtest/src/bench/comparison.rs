//! Comparisons of measurements that were made one after the other, and so under the same conditions.

use std::collections::BTreeMap;

use super::case_result::{Build, CaseResult};
use super::statistics::{Summary, rounded};

/// How two builds differ in one case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BuildComparison {
    pub(crate) case: String,
    /// Median of system ÷ load generator in each build.
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// System ÷ load generator of the new build, divided by that of the old one, over all pairs.
    pub(crate) ratio: Summary,
}

/// Compares the two builds in each case, in the order of the results. Only complete pairs count.
pub(crate) fn compare_builds(results: &[CaseResult]) -> Vec<BuildComparison> {
    let mut cases: Vec<&str> = Vec::new();
    for result in results {
        if !cases.contains(&&*result.case) {
            cases.push(&result.case);
        }
    }
    cases.into_iter().filter_map(|case| compare_case(case, results)).collect()
}

fn compare_case(case: &str, results: &[CaseResult]) -> Option<BuildComparison> {
    let of = |build| values_by_round(results, case, Some(build), |result| result.system_over_load);
    let (before, after) = (of(Build::Before), of(Build::After));
    let pairs: Vec<(f64, f64)> =
        before.iter().filter_map(|(round, before)| Some((*before, *after.get(round)?))).collect();
    Some(BuildComparison {
        case: case.to_owned(),
        before: Summary::of(pairs.iter().map(|(before, _)| *before).collect())?.median,
        after: Summary::of(pairs.iter().map(|(_, after)| *after).collect())?.median,
        ratio: Summary::of(pairs.iter().map(|(before, after)| after / before).collect())?,
    })
}

/// Returns the accepted rate of one case in percent of that of another, over the rounds that have both.
pub(crate) fn compare_rates(results: &[CaseResult], case: &str, reference: &str) -> Option<Summary> {
    let rate = |result: &CaseResult| Some(result.accepted.per_second).filter(|rate| *rate > 0.0);
    let percentages: Vec<f64> =
        ratios(results, case, reference, rate).map(|ratio| rounded(ratio * 100.0, 1)).collect();
    let summary = Summary::of(percentages)?;
    Some(Summary { median: rounded(summary.median, 1), ..summary })
}

/// Returns system ÷ load generator of one case, divided by that of another, over the rounds that have both.
pub(crate) fn compare_costs(results: &[CaseResult], case: &str, reference: &str) -> Option<Summary> {
    Summary::of(ratios(results, case, reference, |result| result.system_over_load).collect())
}

/// The values of one case divided by those of another in the same round and build.
fn ratios(
    results: &[CaseResult],
    case: &str,
    reference: &str,
    value: impl Fn(&CaseResult) -> Option<f64>,
) -> impl Iterator<Item = f64> {
    [None, Some(Build::Before), Some(Build::After)].into_iter().flat_map(move |build| {
        let reference = values_by_round(results, reference, build, &value);
        values_by_round(results, case, build, &value)
            .into_iter()
            .filter_map(move |(round, value)| Some(value / reference.get(&round)?))
    })
}

fn values_by_round(
    results: &[CaseResult],
    case: &str,
    build: Option<Build>,
    value: impl Fn(&CaseResult) -> Option<f64>,
) -> BTreeMap<u32, f64> {
    let matching = results.iter().filter(|result| result.case == case && result.build == build);
    matching.filter_map(|result| Some((result.round, value(result)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::case_result::tests::result;
    use super::*;

    #[test]
    fn builds_are_compared_within_pairs() {
        let (before, after) = (Some(Build::Before), Some(Build::After));
        let results = [
            result("accept-64", 1, before, 8.0, 1.0),
            result("accept-64", 1, after, 8.8, 1.0),
            result("calm-200", 1, before, 5.0, 1.0),
            result("accept-64", 2, after, 16.0, 1.0),
            result("accept-64", 2, before, 16.0, 1.0),
            result("accept-64", 3, before, 10.0, 1.0),
            result("accept-64", 3, after, 9.0, 1.0),
            // Its partner is missing.
            result("accept-64", 4, after, 100.0, 1.0),
        ];
        let comparisons = compare_builds(&results);
        let [accept] = &*comparisons else { panic!("{comparisons:?}") };
        assert_eq!((&*accept.case, accept.before, accept.after), ("accept-64", 10.0, 9.0));
        assert_eq!(accept.ratio.count, 3);
        assert!((accept.ratio.median - 1.0).abs() < 1e-9, "{accept:?}");
        assert!((accept.ratio.min - 0.9).abs() < 1e-9 && (accept.ratio.max - 1.1).abs() < 1e-9, "{accept:?}");
    }

    #[test]
    fn rates_are_compared_within_rounds() {
        let results = [
            result("accept-64", 1, None, 8.0, 1000.0),
            result("costly-64", 1, None, 8.0, 900.0),
            result("accept-64", 2, None, 8.0, 2000.0),
            result("costly-64", 2, None, 8.0, 1701.0),
            result("costly-64", 3, None, 8.0, 1.0),
        ];
        let summary = compare_rates(&results, "costly-64", "accept-64").expect("two rounds");
        assert_eq!(summary, Summary { count: 2, min: 85.1, median: 87.6, max: 90.0 });
        assert_eq!(compare_rates(&results, "costly-64", "calm-200"), None);
    }

    #[test]
    fn costs_are_compared_within_rounds_and_builds() {
        let (before, after) = (Some(Build::Before), Some(Build::After));
        let results = [
            result("end-to-end-64", 1, before, 8.0, 1.0),
            result("history-64", 1, before, 8.8, 1.0),
            result("history-64", 1, after, 6.0, 1.0),
            result("end-to-end-64", 1, after, 4.0, 1.0),
            result("history-64", 2, before, 6.0, 1.0),
        ];
        let summary = compare_costs(&results, "history-64", "end-to-end-64").expect("two pairs");
        assert_eq!((summary.count, summary.max), (2, 1.5));
        assert!((summary.min - 1.1).abs() < 1e-9, "{summary:?}");
    }
}
