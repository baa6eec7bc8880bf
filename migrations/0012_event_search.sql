-- Finding events. Of what a list of events can be filtered by, three things have an index: those that people look for first, and of which
-- a few among millions are wanted. Each index costs every webhook an insertion, so all else is walked (see views::walk).
SET LOCAL lock_timeout = '1s';

-- Creates an index on a parent and on its partitions of days to come, as 0005 and 0008 did: building it on those that are written would
-- hold up their writers, so the maintenance builds it there, concurrently (retention::index_build). Until then those days are walked.
-- One parent in a migration: its writers wait until the migration is committed, and it must not wait for another one's meanwhile.
CREATE FUNCTION create_index_ahead(parent text, index_name text, suffix text, definition text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    partition text;
BEGIN
    -- Whoever waits for the lock on the parent holds up its writers: so not for long, and rather again.
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            EXECUTE format('CREATE INDEX %I ON ONLY %I %s', index_name, parent, definition);
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
        WHERE inhparent = parent::regclass
            AND substring(child.relname FROM '\d{8}$') > to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')
    LOOP
        EXECUTE format('CREATE INDEX %I ON %I %s', partition || suffix, partition, definition);
        EXECUTE format('ALTER INDEX %I ATTACH PARTITION %I', index_name, partition || suffix);
    END LOOP;
END $$;

-- One entry stands for the events of a batch that are of one integration, one type and one slot of time (see events::index); who stores an
-- event by itself, as a process of before, has one for it. The columns come last: see 0007.
DO $$ BEGIN
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            ALTER TABLE events
                ADD COLUMN indexed_events smallint NOT NULL DEFAULT 1,          -- found through its entry; 0: it is found through another one's
                ADD COLUMN indexed_ids uuid[],                                  -- the others of these
                ADD COLUMN external_id_in_key boolean NOT NULL DEFAULT false;   -- idempotency_key is integration_id:external_event_id
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 15 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;

-- 16 ms of ids, and the bounds of the slot of an id.
CREATE FUNCTION id_slot(id uuid) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN set_byte(substring(uuid_send(id) FROM 1 FOR 6), 5, get_byte(uuid_send(id), 5) & 240);
CREATE FUNCTION first_of_slot(id uuid) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (substring(id::text FROM 1 FOR 12) || '0-0000-0000-000000000000')::uuid;
CREATE FUNCTION last_of_slot(id uuid) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (substring(id::text FROM 1 FOR 12) || 'f-ffff-ffff-ffffffffffff')::uuid;

-- The events of an integration, and those of one type, in the order of the list. Both grow at a right end for each integration (and type), so an
-- insertion meets a page that was written lately, and a page is filled before the next one is begun. The second does not stand in for the first: a
-- sender may have any number of types, and each would be one more place to look into.
--
-- Their condition holds for every entry, and only who repeats it gets these indexes. Without it the hot statements would: their generic plans are made
-- while the partition of the day is nearly empty, when an index that ends with the id costs no more than the primary key.
SELECT create_index_ahead('events', 'events_integration', '_integration',
    '(integration_id, id_slot(id)) INCLUDE (id, indexed_events) WHERE indexed_events > 0');
SELECT create_index_ahead('events', 'events_type', '_type',
    '(integration_id, event_type, id_slot(id)) INCLUDE (id, indexed_events) WHERE indexed_events > 0');

-- The provider's own id is found through the idempotency key if that is made of it. The others come in no order, so an insertion meets any page of the
-- day's index. Hence the hash, which takes 20 bytes where an id takes 50, and many pages fit into memory.
SELECT create_index_ahead('events', 'events_external', '_external',
    '(hashtext(external_event_id)) WHERE external_event_id IS NOT NULL AND NOT external_id_in_key');
