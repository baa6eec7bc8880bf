//! The messages that wait to be published.

use grapnel_core::hint::HintMessage;
use tokio::sync::mpsc;

/// The waiting messages of new events and of the dispatcher.
#[derive(Debug)]
pub(super) struct HintIntake {
    new: mpsc::Receiver<HintMessage>,
    due: mpsc::Receiver<HintMessage>,
    /// Whether the turn is that of `due`.
    is_due_next: bool,
}

impl HintIntake {
    pub(super) fn new(new: mpsc::Receiver<HintMessage>, due: mpsc::Receiver<HintMessage>) -> Self {
        Self { new, due, is_due_next: false }
    }

    /// Waits for messages and takes all that have arrived, up to `limit`. Returns false when all senders are gone.
    pub(super) async fn recv_many(&mut self, batch: &mut Vec<HintMessage>, limit: usize) -> bool {
        let first = tokio::select! {
            Some(message) = self.new.recv() => message,
            Some(message) = self.due.recv() => message,
            else => return false,
        };
        batch.push(first);
        while batch.len() < limit
            && let Some(message) = self.try_recv()
        {
            batch.push(message);
        }
        true
    }

    /// Takes from both in turn, as long as both have messages.
    pub(super) fn try_recv(&mut self) -> Option<HintMessage> {
        self.is_due_next = !self.is_due_next;
        let (first, second) =
            if self.is_due_next { (&mut self.due, &mut self.new) } else { (&mut self.new, &mut self.due) };
        first.try_recv().or_else(|_| second.try_recv()).ok()
    }

    /// Refuses further messages.
    pub(super) fn close(&mut self) {
        self.new.close();
        self.due.close();
    }
}
