-- Fills the tables with events whose deliveries have failed, as the product would have written them.
--
-- Variables: events (their number), integration (the name of their Integration), run (their external ids are RUN-0,
-- RUN-1, …), destinations (the names of its destinations, with commas).

SET synchronous_commit = off;

SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + 2);

-- One row per event of the last hour; its id, a UUIDv7, carries its time.
CREATE TEMPORARY TABLE failed AS
SELECT (lpad(to_hex((at_ms)::bigint), 12, '0') || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid AS id,
    to_timestamp(at_ms / 1000.0) AS at, n
FROM (
    SELECT n, md5(n::text) AS noise,
        floor((extract(epoch FROM now()) - 3600.0 * (1 - n::numeric / :events)) * 1000) AS at_ms
    FROM generate_series(0, :events - 1) AS n
) AS times;

INSERT INTO events (id, integration_id, provider, external_event_id, event_type, occurred_at, received_at, correlation_id, headers,
    raw_body, payload_key, payload_start, payload_length, idempotency_key)
SELECT failed.id, integration.id, 'probe', :'run' || '-' || n, 'probe.sent', at, at, failed.id::text, '[]',
    convert_to('{"data":{"text":"' || repeat(md5(n::text), 8) || '"}}', 'UTF8'), 'data', 8, 267, integration.id || ':' || :'run' || '-' || n
FROM failed CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
ORDER BY n;

INSERT INTO deliveries (event_id, destination, integration_id, status, attempts, started_at, finished_at, last_error, updated_at)
SELECT failed.id, destination, integration.id, 'failed', 5, at, at, 'HTTP 503', at
FROM failed
CROSS JOIN (SELECT id FROM integrations WHERE name = :'integration' AND deleted_at IS NULL) AS integration
CROSS JOIN unnest(string_to_array(:'destinations', ',')) AS destination
ORDER BY n;

DROP TABLE failed;
ANALYZE events, deliveries;
