/* views::bounds_of_filtered */
-- In the words of the index deliveries_filtered.
SELECT
    (
        SELECT event_id FROM deliveries
        WHERE finished_at IS NOT NULL AND last_error IS NULL AND attempts = 0 AND event_id >= filtered_since()
        ORDER BY event_id LIMIT 1
    ) AS first,
    (
        SELECT event_id FROM deliveries
        WHERE finished_at IS NOT NULL AND last_error IS NULL AND attempts = 0 AND event_id >= filtered_since()
        ORDER BY event_id DESC LIMIT 1
    ) AS last
