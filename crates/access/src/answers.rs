//! Answers of the API server that are kept for a while: bounded in number, each with its age.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::digest::Digest;

/// How long an answer can be used while the API server cannot be asked. Older ones are forgotten.
pub(crate) const KEPT: Duration = Duration::from_secs(300);

/// After a failure nothing is asked for this long: whoever has an answer of before is not kept waiting for another failure.
pub(crate) const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Answers by the hash of their question.
pub(crate) struct Answers<T> {
    entries: HashMap<Digest, (T, Instant)>,
    capacity: usize,
}

impl<T: Clone> Answers<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity }
    }

    /// Returns the answer and its age, unless it is too old for any use.
    pub(crate) fn get(&self, question: &Digest, now: Instant) -> Option<(T, Duration)> {
        let (answer, at) = self.entries.get(question)?;
        let age = now.saturating_duration_since(*at);
        (age < KEPT).then(|| (answer.clone(), age))
    }

    /// Keeps an answer. When there are too many, those that are too old go first, and then the older half.
    pub(crate) fn put(&mut self, question: Digest, answer: T, now: Instant) {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&question) {
            self.entries.retain(|_, (_, at)| now.saturating_duration_since(*at) < KEPT);
            if self.entries.len() >= self.capacity {
                let mut times: Vec<Instant> = self.entries.values().map(|(_, at)| *at).collect();
                let middle = times.len() / 2;
                let median = *times.select_nth_unstable(middle).1;
                self.entries.retain(|_, (_, at)| *at > median);
            }
        }
        self.entries.insert(question, (answer, now));
    }

    pub(crate) fn remove(&mut self, question: &Digest) {
        self.entries.remove(question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(number: u8) -> Digest {
        [number; 32]
    }

    #[test]
    fn answer_has_an_age_and_an_end() {
        let start = Instant::now();
        let mut answers = Answers::new(4);
        answers.put(question(1), true, start);
        assert_eq!(
            answers.get(&question(1), start + Duration::from_secs(61)),
            Some((true, Duration::from_secs(61)))
        );
        assert_eq!(answers.get(&question(1), start + KEPT), None);
        assert_eq!(answers.get(&question(2), start), None);
        answers.remove(&question(1));
        assert_eq!(answers.get(&question(1), start), None);
    }

    #[test]
    fn older_answers_make_room() {
        let start = Instant::now();
        let mut answers = Answers::new(4);
        for number in 0..=4 {
            answers.put(question(number), number, start + Duration::from_secs(number.into()));
        }
        let now = start + Duration::from_secs(4);
        let kept: Vec<u8> = (0..=4).filter(|number| answers.get(&question(*number), now).is_some()).collect();
        assert_eq!(kept, [3, 4]);
        // At one time, nothing is younger than the middle.
        let mut answers = Answers::new(4);
        for number in 0..100 {
            answers.put(question(number), number, start);
            assert!(answers.entries.len() <= 4);
        }
        assert!(answers.get(&question(99), start).is_some());
    }
}
