/* views::bounds_of_failed */
-- In the words of the index deliveries_failed.
SELECT
    (
        SELECT event_id FROM deliveries
        WHERE finished_at IS NOT NULL AND last_error IS NOT NULL
        ORDER BY event_id LIMIT 1
    ) AS first,
    (
        SELECT event_id FROM deliveries
        WHERE finished_at IS NOT NULL AND last_error IS NOT NULL
        ORDER BY event_id DESC LIMIT 1
    ) AS last
