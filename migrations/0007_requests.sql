-- Requests that carry several events, and payloads that are no slice of the body.
SET LOCAL lock_timeout = '1s';

-- The requests that carry several events, once for all of them. The id is a UUIDv7 of the same millisecond as those of its
-- events and before them, so they are in the partition of the same day, and one finds the other by a range of ids.
CREATE TABLE event_requests (
    id        uuid NOT NULL,
    headers   json NOT NULL,                        -- as events.headers
    raw_body  bytea NOT NULL,                       -- as events.raw_body
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
-- Not compressed: the payload of each event is a slice, and a slice of a compressed value costs reading all before it.
ALTER TABLE event_requests ALTER COLUMN raw_body SET STORAGE EXTERNAL;

CREATE OR REPLACE FUNCTION partitioned_tables() RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN ARRAY['events', 'event_requests', 'deliveries', 'delivery_attempts', 'replay_requests', 'audit_entries'];

-- Workers say what they can read: an api stores nothing that a live one would not understand.
CREATE TABLE worker_heartbeats (
    worker_id       uuid PRIMARY KEY,
    format_version  integer NOT NULL,               -- of the forms of events that it can read
    seen_at         timestamptz NOT NULL
);

-- An event with one of these columns has 16 added to its body_form, which no older process can read: it leaves the delivery
-- to a newer one. The columns come last, since they need a lock on every partition, and whoever waits for that holds up
-- writers: so not for long, and rather again.
DO $$ BEGIN
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            ALTER TABLE events
                ADD COLUMN request_id uuid,             -- in event_requests: headers and raw_body here are empty
                ADD COLUMN request_position integer,    -- from 0, in the order of the document
                ADD COLUMN request_count integer,       -- the elements of the request, also those that were duplicates
                ADD COLUMN payload bytea;               -- the payload, where it is no slice of the raw body
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 15 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;

-- As for events.raw_body.
DO $$ BEGIN
    ALTER TABLE events ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN NULL;
END $$;
