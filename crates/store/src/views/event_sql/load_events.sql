/* views::load_events */
-- $1 the ids, $2 and $3 their bounds, $4 the length of the longest payload that is read, $5 the bound of their requests.
-- The status goes by the declared order of delivery_status. An aggregate without GROUP BY always returns one row.
SELECT e.id, e.integration_id, e.provider, e.external_event_id, e.event_type, e.subject, e.occurred_at, e.received_at,
    e.correlation_id, e.payload_key, e.body_form, e.secret_index, e.erased_at, e.erased_by, delivered.status, delivered.attempts,
    delivered.last_error, delivered.updated_at, attempted.last_processed_at,
    CASE
        WHEN e.payload_length > $4 THEN NULL
        WHEN e.payload IS NOT NULL THEN e.payload
        -- A scalar subquery, and not a join: of a page, few events share their request, or none.
        WHEN e.request_id IS NOT NULL THEN (
            SELECT substring(r.raw_body FROM e.payload_start + 1 FOR e.payload_length)
            FROM event_requests r WHERE r.id = e.request_id AND r.id BETWEEN $5 AND $3
        )
        ELSE substring(e.raw_body FROM e.payload_start + 1 FOR e.payload_length)
    END AS payload
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
WHERE e.id = ANY($1) AND e.id BETWEEN $2 AND $3
