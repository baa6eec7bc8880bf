-- Since when a delivery could not be sent because of faults of ours, such as a token endpoint that does not answer. Such a failure is
-- no attempt, so without this nothing would end it. Cleared by the next attempt and by a replay.
DO $$
BEGIN
    -- Whoever waits for the lock on the parent holds up its writers: so not for long, and rather again.
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            ALTER TABLE deliveries ADD COLUMN unsent_since timestamptz;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 15 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;

-- The destinations that answered 410, each with the generation of the row at that time: deliveries to it are held while the row has
-- that generation. NULL when none ever did.
ALTER TABLE integrations ADD COLUMN gone jsonb;
CREATE TRIGGER integrations_notify_gone
    AFTER UPDATE OF gone ON integrations
    FOR EACH ROW EXECUTE FUNCTION notify_integration();
