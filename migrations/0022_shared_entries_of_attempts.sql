-- Of the index of attempts by integration, one entry stands for the attempts of a statement that are alike (see store::deliveries::attempt_index). The
-- maintenance builds it for the days that are written, and drops the one in whose place it is when all have it.
SET LOCAL lock_timeout = '1s';

-- Executes a command that needs a lock on every partition of a table. Whoever waits for that holds up writers: so not for long, and rather again.
CREATE FUNCTION execute_with_short_waits(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..15 LOOP
        BEGIN
            EXECUTE command;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 15 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END $$;

SELECT execute_with_short_waits('ALTER TABLE delivery_attempts
    ADD COLUMN indexed_attempts smallint NOT NULL DEFAULT 1,    -- found through its entry; 0: it is found through another one''s
    ADD COLUMN indexed_event_ids uuid[]                         -- the events of the others of these');

SELECT create_index_ahead('delivery_attempts', 'delivery_attempts_shared', '_shared',
    '(integration_id, succeeded, id_slot(id)) INCLUDE (id, indexed_attempts) WHERE indexed_attempts > 0');

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'delivery_attempts'::regclass) THEN
        DROP INDEX delivery_attempts_integration;
    END IF;
END $$;
