//! The threads of the pool and their queue.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use super::evaluation::{AfterEvaluation, Evaluation};
use super::{CAPACITY, Inner};

/// The most threads, not counting those that are stuck.
const MAX_THREADS: usize = 4;

/// The stack of a thread. Expressions are at most 32 levels deep, and payloads 128.
const STACK_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct Threads {
    queue: SyncSender<Evaluation>,
    /// Held by the thread that waits for the next evaluation.
    evaluations: Arc<Mutex<Receiver<Evaluation>>>,
}

impl Threads {
    /// Starts as many as there are processors.
    pub(super) fn start(pool: &Arc<Inner>) -> Self {
        let (queue, evaluations) = sync_channel(CAPACITY);
        let threads = Self { queue, evaluations: Arc::new(Mutex::new(evaluations)) };
        let wanted = thread::available_parallelism().map_or(1, usize::from).clamp(1, MAX_THREADS);
        for _ in 0..wanted {
            threads.start_one(Arc::downgrade(pool));
        }
        threads
    }

    /// Starts one more. Without it the others do its work.
    pub(super) fn start_one(&self, pool: Weak<Inner>) {
        let evaluations = Arc::clone(&self.evaluations);
        let builder = thread::Builder::new().name("filters".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = builder.spawn(move || work(&pool, &evaluations)) {
            tracing::error!(%error, "a thread for filters cannot be started");
        }
    }

    /// Queues an evaluation; returns whether there was a place.
    pub(super) fn offer(&self, evaluation: Evaluation) -> bool {
        self.queue.try_send(evaluation).is_ok()
    }
}

/// Works until the pool is dropped, or another thread has taken the place of this one.
fn work(pool: &Weak<Inner>, evaluations: &Mutex<Receiver<Evaluation>>) {
    loop {
        let next = evaluations.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(evaluation) = next else { return };
        let after = evaluation.run();
        if after != AfterEvaluation::GoOn
            && let Some(pool) = pool.upgrade()
        {
            pool.ended();
        }
        if after == AfterEvaluation::Stop {
            return;
        }
    }
}
