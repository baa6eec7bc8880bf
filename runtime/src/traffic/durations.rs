//! The buckets in which durations of attempts are counted, and percentiles from them.
//!
//! Up to 10 ms each millisecond has a bucket; from there on each bucket is a fifth wider than the one before. What is shown of a bucket is the
//! middle of its bounds, in proportion, so it is wrong by less than 10 %.

/// Buckets. The last one also has what is longer, beyond two minutes: no attempt is.
const BUCKETS: usize = 64;

/// The buckets of a single millisecond.
const EXACT: usize = 10;

const RATIO: f64 = 1.2;

/// Returns the bucket of a duration.
pub(crate) fn bucket_of(milliseconds: u32) -> usize {
    let exact = usize::try_from(milliseconds).unwrap_or(usize::MAX);
    if exact < EXACT {
        return exact;
    }
    let beyond = (f64::from(milliseconds) / EXACT as f64).log(RATIO);
    // Not negative, and small.
    (EXACT + beyond as usize).min(BUCKETS - 1)
}

/// Returns the duration that stands for a bucket, in milliseconds.
fn value_of(bucket: usize) -> f64 {
    if bucket < EXACT {
        return bucket as f64;
    }
    EXACT as f64 * RATIO.powf((bucket - EXACT) as f64 + 0.5)
}

/// Returns the duration in milliseconds that this part of the attempts (0 to 1) does not exceed; `None` without any.
pub(crate) fn percentile(buckets: &[i64], part: f64) -> Option<f64> {
    let total: i64 = buckets.iter().sum();
    let rank = ((total as f64 * part).ceil() as i64).max(1);
    let mut passed = 0;
    let bucket = buckets.iter().position(|count| {
        passed += count;
        passed >= rank
    });
    bucket.filter(|_| total > 0).map(value_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_shown_wrong_by_more_than_a_tenth() {
        for milliseconds in (0..200).chain((200..130_000).step_by(97)) {
            let shown = value_of(bucket_of(milliseconds));
            let error = (shown - f64::from(milliseconds)).abs();
            assert!(error <= f64::from(milliseconds) * 0.1, "{milliseconds} is shown as {shown}");
        }
        assert_eq!(bucket_of(u32::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_attempts() {
        let mut buckets = vec![0; BUCKETS];
        for milliseconds in 1..=100 {
            buckets[bucket_of(milliseconds)] += 1;
        }
        for (part, exact) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (0.01, 1.0)] {
            let shown = percentile(&buckets, part).unwrap();
            assert!((shown - exact).abs() <= exact * 0.1, "{part}: {shown}");
        }
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[0, 0], 0.5), None);
        assert_eq!(percentile(&[0, 1], 0.99), Some(1.0));
    }
}
