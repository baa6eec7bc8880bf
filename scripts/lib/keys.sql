-- Fills idempotency_keys as so many events would, without these: keys in no order, of events in the order of time. Their days exist, or the
-- maintenance would remove the keys.
--
-- Variables: keys (their number), days (over which they spread).

SET synchronous_commit = off;
SET maintenance_work_mem = '512MB';

SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - :days, (now() AT TIME ZONE 'UTC')::date + 2);

-- Built at the end, the index takes a fraction of the time.
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey;

INSERT INTO idempotency_keys (key_hash, event_id)
SELECT gen_random_uuid(),
    (lpad(to_hex(((extract(epoch FROM now())::float8 - :days * 86400 * (1 - n::float8 / :keys)) * 1000)::bigint), 12, '0')
        || '70008000' || lpad(to_hex(n), 12, '0'))::uuid
FROM generate_series(0, :keys - 1) AS n;

ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key_hash);
