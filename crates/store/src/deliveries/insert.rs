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
    /// Left out by the filter of its destination. It ends as it is born.
    Filtered,
}

impl Birth {
    /// Returns the value for [`insert_deliveries`].
    pub(crate) const fn code(self) -> i16 {
        match self {
            Self::Queued => 0,
            Self::Due => 1,
            Self::Held => 2,
            Self::Filtered => 3,
        }
    }
}

/// Inserts the deliveries of the events that are new. The row is its own outbox: `queued_at` says that the message is about
/// to be published; otherwise the row is due or held from the start, or finished.
///
/// `$22` events, `$23` destinations, `$24` integrations, `$25` codes of [`Birth`].
macro_rules! insert_deliveries {
    () => {
        concat!(
            "INSERT INTO deliveries (event_id, destination, integration_id, status, queued_at, due_at, finished_at, updated_at)
        SELECT event_id, destination, integration_id,
            CASE birth WHEN 3 THEN 'succeeded' ELSE 'pending' END::delivery_status,
            CASE birth WHEN 0 THEN now() END,
            CASE birth WHEN 1 THEN now() WHEN 2 THEN ",
            $crate::deliveries::never!(),
            " END,
            CASE birth WHEN 3 THEN now() END, now()
        FROM unnest($22::uuid[], $23::text[], $24::uuid[], $25::smallint[]) AS d (
            event_id, destination, integration_id, birth)
        WHERE event_id IN (SELECT event_id FROM fresh)"
        )
    };
}
pub(crate) use insert_deliveries;

/// Whether the delivery `d` was left out by the filter of its destination: it succeeded without an attempt. In the words of the index
/// deliveries_filtered.
macro_rules! is_filtered {
    () => {
        "(d.finished_at IS NOT NULL AND d.last_error IS NULL AND d.attempts = 0)"
    };
}
pub(crate) use is_filtered;
