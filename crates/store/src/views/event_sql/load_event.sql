/* views::load_event */
-- The status goes by the declared order of delivery_status. An aggregate without GROUP BY always returns one row.
SELECT e.id, e.integration_id, e.provider, e.external_event_id, e.event_type, e.subject, e.occurred_at, e.received_at,
    e.correlation_id, e.payload_key, e.body_form, e.secret_index, e.erased_at, e.erased_by, delivered.status, delivered.attempts,
    delivered.last_error, delivered.updated_at, attempted.last_processed_at,
    CASE
        WHEN e.payload IS NOT NULL THEN e.payload
        WHEN e.request_id IS NOT NULL THEN substring(r.raw_body FROM e.payload_start + 1 FOR e.payload_length)
        ELSE substring(e.raw_body FROM e.payload_start + 1 FOR e.payload_length)
    END AS payload,
    COALESCE(r.raw_body, e.raw_body) AS raw_body, COALESCE(r.headers, e.headers)::text AS headers, e.packed_headers,
    e.request_id, e.request_position, e.request_count, host(e.source_ip) AS source_ip,
    CASE WHEN e.idempotency_key = '' THEN e.integration_id || ':' || e.external_event_id ELSE e.idempotency_key END AS idempotency_key,
    -- Few events have such a row. It was stored with the event, so no other day is looked into.
    (SELECT (a.details -> 'leftOut')::text FROM audit_entries a
        WHERE a.entity_id = e.id AND a.action = 'webhook.received'
            AND a.id >= uuidv7_floor(uuidv7_time($1) - interval '1 hour')
            AND a.id < uuidv7_floor(uuidv7_time($1) + interval '24 hours')
        LIMIT 1) AS left_out
FROM events e
LEFT JOIN event_requests r ON r.id = e.request_id
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
