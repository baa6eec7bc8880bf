-- Fills the tables with events that were received over the past days, as the product would have written them: 1 KB bodies, ids in
-- the order of time, those of the younger half in batches. Each was delivered, or waits as if accepted during a pause.
--
-- Variables: events (their number), days (the number of days), integration (the name of their Integration), and waiting (the
-- destinations that the events wait for, separated by commas; not set: each was delivered to "sink").

SET synchronous_commit = off;
SET maintenance_work_mem = '512MB';

SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - :days, (now() AT TIME ZONE 'UTC')::date + 2);

-- One row per event; its id, a UUIDv7, carries its time.
CREATE TEMPORARY TABLE history AS
SELECT (lpad(to_hex((at_ms)::bigint), 12, '0') || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid AS id,
    to_timestamp(at_ms / 1000.0) AS at,
    n
FROM (
    SELECT n, md5(n::text) AS noise,
        CASE WHEN n < :events / 2 THEN at_ms ELSE at_ms - at_ms % 512 + n % 8 END AS at_ms
    FROM (
        SELECT n, floor((extract(epoch FROM now()) - :days * 86400.0 * (1 - n::numeric / :events)) * 1000) AS at_ms
        FROM generate_series(0, :events - 1) AS n
    ) AS steady
) AS times;

-- The entries of a batch, as the modules events::index and deliveries::attempt_index make them: of up to 10 events of a slot of time, or their attempts.
CREATE TEMPORARY TABLE entries AS
SELECT id, CASE WHEN place % 10 = 1 THEN count(*) OVER batch ELSE 0 END AS indexed_events,
    CASE WHEN place % 10 = 1 THEN nullif(array_agg(id) OVER (batch ORDER BY id ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), '{}') END
        AS indexed_ids
FROM (
    SELECT id, row_number() OVER (PARTITION BY id_slot(id) ORDER BY id) AS place FROM history WHERE n >= :events / 2
) AS places
WINDOW batch AS (PARTITION BY id_slot(id), (place - 1) / 10);

INSERT INTO events (id, integration_id, provider, external_event_id, event_type, subject, occurred_at, received_at,
    correlation_id, source_ip, headers, packed_headers, raw_body, payload_key, payload_start, payload_length, idempotency_key,
    indexed_events, indexed_ids, external_id_in_key)
SELECT history.id, integration.id, 'acme', 'history-' || n, 'order.created', 'order-' || n % 100000, at, at,
    history.id::text, '127.0.0.1',
    -- host: 127.0.0.1:8080, content-type: application/json, and an x-acme-signature (see the module packed_headers).
    '[]', '\x028e3132372e302e302e313a38303830000157d05d41402abc4b2a76b9719d911017c592',
    body, 'data', position('"data":' IN body_text) + 6, length(body_text) - position('"data":' IN body_text) - 7,
    '', coalesce(entries.indexed_events, 1), entries.indexed_ids, true
FROM history
LEFT JOIN entries ON entries.id = history.id
CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
CROSS JOIN LATERAL (
    SELECT '{"eventId":"history-' || n || '","eventType":"order.created","occurredAt":"2026-01-02T03:04:05Z","data":{"id":"order-'
        || n % 100000 || '","text":"' || repeat(md5(n::text), 28) || '"}}' AS body_text
) AS texts
CROSS JOIN LATERAL (SELECT convert_to(body_text, 'UTF8') AS body) AS bodies
ORDER BY n;

INSERT INTO idempotency_keys (key_hash, event_id)
SELECT encode(substring(sha256(convert_to(integration.id || ':history-' || n, 'UTF8')) FOR 16), 'hex')::uuid, history.id
FROM history
CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
ORDER BY n;

\if :{?waiting}

INSERT INTO deliveries (event_id, destination, integration_id, status, due_at, updated_at)
SELECT history.id, destination, integration.id, 'pending', '9999-01-01 00:00:00+00', at
FROM history
CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
CROSS JOIN unnest(string_to_array(:'waiting', ',')) AS destination
ORDER BY n;

\else

INSERT INTO deliveries (event_id, destination, integration_id, status, attempts, started_at, finished_at, updated_at)
SELECT history.id, 'sink', integration.id, 'succeeded', 1, at, at, at
FROM history CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
ORDER BY n;

INSERT INTO delivery_attempts (id, event_id, integration_id, destination, attempt_no, succeeded, http_status, response_body,
    duration_ms, triggered_by, scheduled_at, started_at, indexed_attempts, indexed_event_ids)
SELECT overlay(history.id::text placing 'a' from 36)::uuid, history.id, integration.id, 'sink', 1, true, 200, '', 1, 'webhook', at, at,
    coalesce(entries.indexed_events, 1), entries.indexed_ids
FROM history
LEFT JOIN entries ON entries.id = history.id
CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
ORDER BY n;

\endif

DROP TABLE history, entries;
