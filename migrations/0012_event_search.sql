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

-- The events of an integration, and those of one type, in the order of the list. Both grow at a right end for each integration (and type), so
-- an insertion meets a page that was written lately, and a page is filled before the next one is begun. The second does not stand in for the first: a sender may have any number of types, and each would be one more place to look into.
--
-- The predicates hold for every event, and only who repeats them gets these indexes. Without them the hot statements would: their generic plans are
-- made while the partition of the day is nearly empty, when an index with the id as its last column costs no more than the primary key, and it
-- would then be read from end to end for each claim.
SELECT create_index_ahead('events', 'events_integration', '_integration',
    '(integration_id, id) WHERE integration_id <> ''00000000-0000-0000-0000-000000000000''');
SELECT create_index_ahead('events', 'events_type', '_type',
    '(integration_id, event_type, id) WHERE integration_id <> ''00000000-0000-0000-0000-000000000000''');

-- The provider's own ids come in no order, so an insertion meets any page of the day's index. Hence the hash, which takes 20 bytes where an
-- id takes 50, and many pages fit into memory: it is what support is asked about, and there is one event among millions.
SELECT create_index_ahead('events', 'events_external', '_external', '(hashtext(external_event_id)) WHERE external_event_id IS NOT NULL');
