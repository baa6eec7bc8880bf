/* views::bounds_of_open */
-- $1 the status. There is no min(uuid); as text the order is the same.
SELECT min(event_id::text)::uuid AS first, max(event_id::text)::uuid AS last
FROM deliveries
WHERE finished_at IS NULL AND status::text = $1
