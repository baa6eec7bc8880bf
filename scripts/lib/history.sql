-- Fills the tables with events that were received over the past days, as the product would have written them: 1 KB bodies, ids in
-- the order of time, random deduplication keys. Each was delivered, or waits as if accepted during a pause.
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
        floor((extract(epoch FROM now()) - :days * 86400.0 * (1 - n::numeric / :events)) * 1000) AS at_ms
    FROM generate_series(0, :events - 1) AS n
) AS times;

INSERT INTO events (id, integration_id, provider, external_event_id, event_type, subject, occurred_at, received_at,
    correlation_id, source_ip, headers, raw_body, payload_key, payload_start, payload_length, idempotency_key)
SELECT history.id, integration.id, 'acme', 'history-' || n, 'order.created', 'order-' || n % 100000, at, at,
    history.id::text, '127.0.0.1',
    '[["host","127.0.0.1:8080"],["content-type","application/json"],["x-acme-signature","5d41402abc4b2a76b9719d911017c592"]]',
    body, 'data', position('"data":' IN body_text) + 6, length(body_text) - position('"data":' IN body_text) - 7,
    integration.id || ':history-' || n
FROM history
CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
CROSS JOIN LATERAL (
    SELECT '{"eventId":"history-' || n || '","eventType":"order.created","occurredAt":"2026-01-02T03:04:05Z","data":{"id":"order-'
        || n % 100000 || '","text":"' || repeat(md5(n::text), 28) || '"}}' AS body_text
) AS texts
CROSS JOIN LATERAL (SELECT convert_to(body_text, 'UTF8') AS body) AS bodies
ORDER BY n;

INSERT INTO idempotency_keys (key_hash, event_id)
SELECT md5('history-' || n)::uuid, id FROM history ORDER BY n;

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
    duration_ms, triggered_by, scheduled_at, started_at)
SELECT overlay(history.id::text placing 'a' from 36)::uuid, history.id, integration.id, 'sink', 1, true, 200, '', 1, 'webhook', at, at
FROM history CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
ORDER BY n;

\endif

DROP TABLE history;
