-- Fewer bytes for an event. Its headers are packed (see store::packed_headers) where no destination needs them; headers is [] then. And its
-- idempotency_key is empty where that is integration_id:external_event_id, both of which the row has.
DO $$ BEGIN
    -- It needs a lock on every partition, and whoever waits for that holds up writers: so not for long, and rather again.
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            ALTER TABLE events ADD COLUMN packed_headers bytea;
            -- For processes of before, which do not know the column: who erases an event erases these too.
            CREATE FUNCTION erase_packed_headers() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.packed_headers := NULL; RETURN NEW; END';
            CREATE TRIGGER erase_packed_headers BEFORE UPDATE OF erased_at ON events
                FOR EACH ROW EXECUTE FUNCTION erase_packed_headers();
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 15 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;
