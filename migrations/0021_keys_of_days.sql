-- The keys of a day are pruned by reading the table once, without an index that every webhook pays for. The index of a table that has keys is dropped
-- by the maintenance, concurrently.
SET LOCAL lock_timeout = '1s';

ALTER TABLE expired_days ADD COLUMN has_keys boolean NOT NULL DEFAULT true;     -- whether keys of the day may be left

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM idempotency_keys) THEN
        DROP INDEX IF EXISTS idempotency_keys_event, idempotency_keys_event_id;
    END IF;
EXCEPTION WHEN lock_not_available THEN NULL;
END $$;
