//! How many deliveries the messages of a queue have. RabbitMQ tells the number of messages only.

/// Messages that are averaged: about as many as a queue has.
const AVERAGED: usize = 65_536;

/// The messages that were published lately, and their deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MessageSize {
    messages: usize,
    deliveries: usize,
}

impl MessageSize {
    /// Counts a message.
    pub(super) fn add(&mut self, deliveries: usize) {
        if self.messages >= AVERAGED {
            (self.messages, self.deliveries) = (self.messages / 2, self.deliveries / 2);
        }
        (self.messages, self.deliveries) = (self.messages + 1, self.deliveries + deliveries);
    }

    /// Returns how many deliveries so many messages are expected to have: one each where none was published.
    pub(super) fn deliveries_in(self, messages: usize) -> usize {
        if self.is_of_one() { messages } else { messages.saturating_mul(self.deliveries) / self.messages }
    }

    /// Returns whether each has one delivery.
    pub(super) fn is_of_one(self) -> bool {
        self.deliveries <= self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_expected_as_in_the_messages_of_late() {
        let mut size = MessageSize::default();
        assert_eq!(size.deliveries_in(10), 10);
        for deliveries in [1, 3] {
            size.add(deliveries);
        }
        assert_eq!(size.deliveries_in(10), 20);
        for _ in 0..20 * AVERAGED {
            size.add(1);
        }
        assert_eq!(size.deliveries_in(10), 10);
    }
}
