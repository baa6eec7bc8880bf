//! The INSERT of deliveries, as a part of the statement that stores their event.

/// Inserts the deliveries of the events that are new. The row is its own outbox: `queued_at` says that the message is about
/// to be published; while RabbitMQ is unavailable the row is due from the start instead.
///
/// `$23` events, `$24` destinations, `$25` integrations, `$26` whether the messages are about to be published.
macro_rules! insert_deliveries {
    () => {
        "INSERT INTO deliveries (event_id, destination, integration_id, queued_at, due_at, updated_at)
        SELECT event_id, destination, integration_id, CASE WHEN $26 THEN now() END, CASE WHEN NOT $26 THEN now() END,
            now()
        FROM unnest($23::uuid[], $24::text[], $25::uuid[]) AS d (event_id, destination, integration_id)
        WHERE event_id IN (SELECT event_id FROM fresh)"
    };
}
pub(crate) use insert_deliveries;
