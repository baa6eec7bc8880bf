/* views::more_processed */
-- Whether more events than the cap are surely processed, without a look at the deliveries of each: all are, but for at most one for each delivery
-- that is unfinished or failed, which two partial indexes have. When these are many, it does not say.
WITH unprocessed AS MATERIALIZED (
    SELECT (
        SELECT count(*) FROM (
            SELECT FROM deliveries WHERE finished_at IS NULL
            ORDER BY integration_id, destination, event_id LIMIT 10001
        ) AS unfinished
    ) + (
        SELECT count(*) FROM (
            SELECT FROM deliveries WHERE finished_at IS NOT NULL AND last_error IS NOT NULL
            ORDER BY event_id LIMIT 10001
        ) AS failed
    ) AS deliveries
)
SELECT deliveries <= 10000 AND deliveries + 10001 = (
    SELECT count(*) FROM (SELECT FROM events ORDER BY id DESC LIMIT (SELECT deliveries + 10001 FROM unprocessed)) AS newest
)
FROM unprocessed
