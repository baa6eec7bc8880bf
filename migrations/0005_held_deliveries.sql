-- Deliveries that wait for their destination: nothing is published for a paused one, or beyond what its queue takes. They are due at
-- a time that never comes, so that they are behind everything that is due, at no cost for whoever looks for that. An older version
-- leaves them alone.
--
-- Only on the parent and on partitions that nobody writes yet: building it on the others would hold up their writers. Until those
-- days are dropped, their deliveries are found through deliveries_due.
DO $$
DECLARE
    partition text;
BEGIN
    -- Whoever waits for the lock on the parent holds up its writers: so not for long, and rather again.
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            CREATE INDEX deliveries_held ON ONLY deliveries (integration_id, destination, event_id)
                WHERE due_at = '9999-01-01 00:00:00+00'::timestamptz;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 15 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
    FOR partition IN
        SELECT child.relname
        FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = 'deliveries'::regclass
            AND substring(child.relname FROM '\d{8}$') > to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')
    LOOP
        EXECUTE format('CREATE INDEX %I ON %I (integration_id, destination, event_id)
            WHERE due_at = ''9999-01-01 00:00:00+00''::timestamptz', partition || '_held', partition);
        EXECUTE format('ALTER INDEX deliveries_held ATTACH PARTITION %I', partition || '_held');
    END LOOP;
END $$;

-- The one process that looks for lost messages and publishes what was held.
CREATE TABLE dispatcher_lease (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder      uuid NOT NULL,
    held_until  timestamptz NOT NULL
);
INSERT INTO dispatcher_lease (holder, held_until) VALUES ('00000000-0000-0000-0000-000000000000', now());
