//! Medians, ranges and rounding.

/// The median and range of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` if there are no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Summary> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            (values[middle - 1] + values[middle]) / 2.0
        } else {
            values[middle]
        };
        Some(Summary { count: values.len(), min, median, max })
    }
}

/// Rounds to so many decimals, half away from zero.
pub(crate) fn rounded(value: f64, decimals: i32) -> f64 {
    let factor = 10_f64.powi(decimals);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_of_the_sorted_values() {
        for (values, min, median, max) in [
            (vec![3.0], 3.0, 3.0, 3.0),
            (vec![4.0, 1.0], 1.0, 2.5, 4.0),
            (vec![9.0, 1.0, 2.0], 1.0, 2.0, 9.0),
            (vec![10.0, 1.0, 3.0, 2.0], 1.0, 2.5, 10.0),
        ] {
            let count = values.len();
            assert_eq!(Summary::of(values), Some(Summary { count, min, median, max }));
        }
        assert_eq!(Summary::of(Vec::new()), None);
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        assert_eq!([rounded(0.125, 2), rounded(-0.125, 2), rounded(7.0, 2)], [0.13, -0.13, 7.0]);
    }
}
