//! The INSERT of deliveries, as a part of the statement that stores their event.

/// What a delivery is born as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// Its message is about to be published.
    Queued,
    /// Due, while RabbitMQ is unavailable.
    Due,
    /// Held until its destination can have it.
    Held,
}

impl Birth {
    /// Returns the value for [`insert_deliveries`].
    pub(crate) const fn code(self) -> i16 {
        match self {
            Self::Queued => 0,
            Self::Due => 1,
            Self::Held => 2,
        }
    }
}

/// Inserts the deliveries of the events that are new. The row is its own outbox: `queued_at` says that the message is about
/// to be published; otherwise the row is due or held from the start.
///
/// `$23` events, `$24` destinations, `$25` integrations, `$26` codes of [`Birth`].
macro_rules! insert_deliveries {
    () => {
        concat!(
            "INSERT INTO deliveries (event_id, destination, integration_id, queued_at, due_at, updated_at)
        SELECT event_id, destination, integration_id, CASE birth WHEN 0 THEN now() END,
            CASE birth WHEN 1 THEN now() WHEN 2 THEN ",
            $crate::deliveries::never!(),
            " END, now()
        FROM unnest($23::uuid[], $24::text[], $25::uuid[], $26::smallint[]) AS d (
            event_id, destination, integration_id, birth)
        WHERE event_id IN (SELECT event_id FROM fresh)"
        )
    };
}
pub(crate) use insert_deliveries;
