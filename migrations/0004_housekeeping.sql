-- Housekeeping that stands in nobody's way: partitions are attached and detached, removals end their deliveries in the
-- background, and an old day leaves by itself.
SET LOCAL lock_timeout = '1s';

-- ---------------------------------------------------------------------------------------------------------------------
-- Removals. A row is there from the removal of a destination, or of an integration, until its deliveries have ended, so the
-- table is nearly always empty. What is in it is not claimed and not queued.

CREATE TABLE removals (
    integration_id      uuid NOT NULL,
    destination         text NOT NULL,              -- empty: all of the integration's
    cutoff              uuid NOT NULL,              -- deliveries of events before this one end: it may be added again
    reason              text NOT NULL,              -- their last error
    -- The deliveries up to this one have ended, in the order of the index deliveries_open.
    cursor_destination  text NOT NULL DEFAULT '',
    cursor_event        uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ended               bigint NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    worked_at           timestamptz,                -- of the last batch: removals take turns
    PRIMARY KEY (integration_id, destination)
);

-- The histories that are being deleted. All integrations share the tables, so the events of some time are read.
CREATE TABLE purges (
    integration_id  uuid PRIMARY KEY,
    actor           text NOT NULL,
    cursor_event    uuid NOT NULL,                  -- the events up to this one have been read
    last_event      uuid NOT NULL,                  -- none of the integration's is after this one
    events          bigint NOT NULL DEFAULT 0,      -- deleted so far
    created_at      timestamptz NOT NULL DEFAULT now(),
    worked_at       timestamptz
);

-- The secrets of what is removed are of no use to anybody.
UPDATE integrations SET secrets = '' WHERE deleted_at IS NOT NULL AND secrets <> '';

-- ---------------------------------------------------------------------------------------------------------------------
-- Partitions.

-- The days that are being dropped. Once a day is here nothing of it becomes unfinished any more, and it leaves, whatever
-- the retention is by then: its keys may be gone already.
CREATE TABLE expired_days (
    day         date PRIMARY KEY,
    expired_at  timestamptz NOT NULL DEFAULT now()
);

-- Creates the partition of a UTC day and returns whether it did. It is attached, which a reader or writer of the parent
-- neither holds up nor waits for; CREATE TABLE … PARTITION OF would lock all of them out.
CREATE FUNCTION create_partition(parent text, day date) RETURNS boolean LANGUAGE plpgsql
SET lock_timeout = '1s' AS $$
DECLARE
    partition text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
    IF parent = 'deliveries' THEN
        -- Room for heap-only updates: a batch is claimed on the pages where it was born, before any can be pruned.
        EXECUTE format('ALTER TABLE %I SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)', partition);
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, partition,
        uuidv7_floor(day::timestamp AT TIME ZONE 'UTC'), uuidv7_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
    RETURN true;
EXCEPTION WHEN duplicate_table OR duplicate_object OR unique_violation THEN
    RETURN false; -- another process was first
END $$;

-- For processes of before: as they know it, and as harmless as create_partition.
CREATE OR REPLACE FUNCTION ensure_partitions(first_day date, last_day date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    created integer := 0;
BEGIN
    FOREACH parent IN ARRAY partitioned_tables() LOOP
        BEGIN
            FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
                IF create_partition(parent, day) THEN
                    created := created + 1;
                END IF;
            END LOOP;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'partitions of % are not created: %', parent, SQLERRM;
        END;
    END LOOP;
    RETURN created;
END $$;

-- For processes of before, and after a rollback to them. A function cannot detach concurrently, so this drops only what it
-- can have nearly at once, and gives up at the first lock that it would have to wait for.
CREATE OR REPLACE FUNCTION drop_expired_partitions(first_kept_day date) RETURNS text[] LANGUAGE plpgsql
SET lock_timeout = '200ms' AS $$
DECLARE
    day text;
    parent text;
    partition text;
    unfinished boolean;
    dropped text[] := '{}';
    dropped_of_day text[];
BEGIN
    FOR day IN
        SELECT DISTINCT substring(child.relname FROM '\d{8}$')
        FROM pg_inherits
        JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = ANY (SELECT to_regclass(name) FROM unnest(partitioned_tables()) AS name)
            AND NOT inhdetachpending
            AND substring(child.relname FROM '\d{8}$') < to_char(first_kept_day, 'YYYYMMDD')
            AND NOT EXISTS (SELECT FROM expired_days e WHERE to_char(e.day, 'YYYYMMDD') = substring(child.relname FROM '\d{8}$'))
        ORDER BY 1
    LOOP
        IF to_regclass('deliveries_' || day) IS NOT NULL THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE finished_at IS NULL)', 'deliveries_' || day)
                INTO unfinished;
            CONTINUE WHEN unfinished;
        END IF;
        dropped_of_day := '{}';
        BEGIN
            FOREACH parent IN ARRAY partitioned_tables() LOOP
                partition := parent || '_' || day;
                CONTINUE WHEN to_regclass(partition) IS NULL;
                EXECUTE format('DROP TABLE %I', partition);
                dropped_of_day := dropped_of_day || partition;
            END LOOP;
        EXCEPTION WHEN lock_not_available THEN
            RETURN dropped;
        END;
        dropped := dropped || dropped_of_day;
    END LOOP;
    RETURN dropped;
END $$;

-- ---------------------------------------------------------------------------------------------------------------------
-- Keys are found by their event. An index that grows at its right end serves ranges of days at the cost of their keys; the
-- ranges of a BRIN index never narrow, so after the first round of pruning it selected the whole table. A table that has
-- keys gets the index from the maintenance, which builds it concurrently.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM idempotency_keys) THEN
        CREATE INDEX idempotency_keys_event_id ON idempotency_keys (event_id);
        DROP INDEX idempotency_keys_event;
    END IF;
EXCEPTION WHEN lock_not_available THEN NULL;
END $$;
