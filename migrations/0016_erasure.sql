-- Events whose content was erased on request. What an older process would read of such an event is empty, and its deliveries have ended.
DO $$ BEGIN
    -- It needs a lock on every partition, and whoever waits for that holds up writers: so not for long, and rather again.
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            ALTER TABLE events
                ADD COLUMN erased_at timestamptz,
                ADD COLUMN erased_by text;          -- the actor of the audit entry
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 15 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;
