/* views::load_processing */
-- The status goes by the declared order of delivery_status. An aggregate without GROUP BY always returns one row.
SELECT e.id, delivered.status, delivered.attempts, delivered.last_error, attempted.last_processed_at
FROM events e
CROSS JOIN LATERAL (
    SELECT CASE WHEN COALESCE(bool_and(d.status = 'succeeded'), true) THEN 'processed'
            ELSE COALESCE(max(d.status) FILTER (WHERE d.finished_at IS NULL)::text, 'failed') END AS status,
        COALESCE(sum(d.attempts), 0)::bigint AS attempts,
        (array_agg(d.last_error ORDER BY d.updated_at DESC)
            FILTER (WHERE d.last_error IS NOT NULL AND d.status <> 'succeeded'))[1] AS last_error,
        max(GREATEST(d.updated_at, d.started_at)) AS updated_at
    FROM deliveries d WHERE d.event_id = e.id
) AS delivered
CROSS JOIN LATERAL (
    SELECT max(a.started_at + a.duration_ms * interval '1 millisecond') AS last_processed_at
    FROM delivery_attempts a WHERE a.event_id = e.id
) AS attempted
WHERE e.id = $1
