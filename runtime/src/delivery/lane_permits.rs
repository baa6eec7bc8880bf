//! The permits of one destination, which outlive its lanes.
//!
//! A changed destination gets a new lane at once, while attempts of the old one are still in flight. Both take permits here, so
//! that together they never exceed the concurrency.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A semaphore whose limit can change while permits are taken.
#[derive(Debug)]
pub(super) struct LanePermits {
    semaphore: Arc<Semaphore>,
    limit: usize,
}

impl LanePermits {
    pub(super) fn new(limit: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(limit)), limit }
    }

    /// Returns the semaphore that lanes take permits from.
    pub(super) fn semaphore(&self) -> Arc<Semaphore> {
        Arc::clone(&self.semaphore)
    }

    /// Changes the limit. Permits above a lower one disappear as they are given back.
    pub(super) fn set_limit(&mut self, limit: usize) {
        if limit >= self.limit {
            self.semaphore.add_permits(limit - self.limit);
        } else {
            let surplus = self.limit - limit;
            let taken = surplus - self.semaphore.forget_permits(surplus);
            // The semaphore is fair: nobody gets a permit before these are gone.
            if let Ok(taken @ 1..) = u32::try_from(taken) {
                let semaphore = Arc::clone(&self.semaphore);
                tokio::spawn(async move {
                    if let Ok(permits) = semaphore.acquire_many_owned(taken).await {
                        permits.forget();
                    }
                });
            }
        }
        self.limit = limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_above_a_lower_limit_disappear_as_they_are_given_back() {
        let mut permits = LanePermits::new(3);
        let semaphore = permits.semaphore();
        let take = || Arc::clone(&semaphore).try_acquire_owned().ok();
        let taken: Vec<_> = std::iter::from_fn(take).collect();
        assert_eq!(taken.len(), 3);
        permits.set_limit(1);
        tokio::task::yield_now().await;
        let mut taken = taken.into_iter();
        for _ in 0..2 {
            drop(taken.next());
            tokio::task::yield_now().await;
            assert!(take().is_none(), "the limit is 1, and one is taken");
        }
        drop(taken.next());
        let one = take();
        assert!(one.is_some() && take().is_none());
    }

    #[tokio::test]
    async fn a_higher_limit_adds_permits_at_once() {
        let mut permits = LanePermits::new(1);
        let semaphore = permits.semaphore();
        let _taken = semaphore.try_acquire().expect("a permit");
        permits.set_limit(3);
        assert_eq!(semaphore.available_permits(), 2);
    }
}
