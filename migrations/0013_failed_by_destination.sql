-- The failed deliveries of a destination, in the order of the list of events. Only a delivery that fails is written to it. Its columns and
-- those of its predicate are in other indexes already, so a claim stays a heap-only update.
SET LOCAL lock_timeout = '1s';

SELECT create_index_ahead('deliveries', 'deliveries_failed_destination', '_failed_destination',
    '(destination, event_id) WHERE finished_at IS NOT NULL AND last_error IS NOT NULL');
