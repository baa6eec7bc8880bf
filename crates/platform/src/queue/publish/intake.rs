//! The hints that wait to be published.

use grapnel_core::hint::Hint;
use tokio::sync::mpsc;

/// The waiting hints of new events and of the dispatcher.
#[derive(Debug)]
pub(super) struct HintIntake {
    new: mpsc::Receiver<Hint>,
    due: mpsc::Receiver<Hint>,
    /// Whether the turn is that of `due`.
    is_due_next: bool,
}

impl HintIntake {
    pub(super) fn new(new: mpsc::Receiver<Hint>, due: mpsc::Receiver<Hint>) -> Self {
        Self { new, due, is_due_next: false }
    }

    /// Waits for hints and takes all that have arrived, up to `limit`. Returns false when all senders are gone.
    pub(super) async fn recv_many(&mut self, batch: &mut Vec<Hint>, limit: usize) -> bool {
        let first = tokio::select! {
            Some(hint) = self.new.recv() => hint,
            Some(hint) = self.due.recv() => hint,
            else => return false,
        };
        batch.push(first);
        while batch.len() < limit
            && let Some(hint) = self.try_recv()
        {
            batch.push(hint);
        }
        true
    }

    /// Takes from both in turn, as long as both have hints.
    pub(super) fn try_recv(&mut self) -> Option<Hint> {
        self.is_due_next = !self.is_due_next;
        let (first, second) =
            if self.is_due_next { (&mut self.due, &mut self.new) } else { (&mut self.new, &mut self.due) };
        first.try_recv().or_else(|_| second.try_recv()).ok()
    }

    /// Refuses further hints.
    pub(super) fn close(&mut self) {
        self.new.close();
        self.due.close();
    }
}
