-- Filters of destinations. A delivery that a filter leaves out is one that succeeded without an attempt and without an error: no
-- other delivery is like that. So the type delivery_status and the constraints of deliveries stay as they are, which to change would
-- lock every day of it, and an older version shows such an event as processed and not as failed.

-- The events with such a delivery. Only on the parent and on partitions that nobody writes yet, as in 0005: on the others they are found
-- by the primary key, from the day of this migration on.
DO $$
DECLARE
    partition text;
BEGIN
    -- Whoever waits for the lock on the parent holds up its writers: so not for long, and rather again.
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            CREATE INDEX deliveries_filtered ON ONLY deliveries (event_id)
                WHERE finished_at IS NOT NULL AND last_error IS NULL AND attempts = 0;
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
        EXECUTE format('CREATE INDEX %I ON %I (event_id)
            WHERE finished_at IS NOT NULL AND last_error IS NULL AND attempts = 0', partition || '_filtered', partition);
        EXECUTE format('ALTER INDEX deliveries_filtered ATTACH PARTITION %I', partition || '_filtered');
    END LOOP;
    -- The first id that an event with a filtered delivery can have: no day before this one is searched.
    EXECUTE format('CREATE FUNCTION filtered_since() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN %L::uuid',
        uuidv7_floor(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'));
END $$;

-- The filters that could not be evaluated for some event: the last error of each destination. A row is there from the first error
-- of a generation of the spec on.
CREATE TABLE filter_errors (
    integration_id   uuid NOT NULL REFERENCES integrations ON DELETE CASCADE,
    destination      text NOT NULL,
    generation       bigint NOT NULL,
    error            text NOT NULL,
    sample_event_id  uuid NOT NULL,
    errors           bigint NOT NULL,
    last_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (integration_id, destination)
);
