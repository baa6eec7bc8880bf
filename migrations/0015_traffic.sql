-- Traffic by the minute, which statistics are read from: counting rows would cost more with every event. The processes add what they counted every few
-- seconds; what can be counted exactly is corrected from the rows once a minute is over (store::traffic). Kept for 35 days, also of integrations
-- whose history was deleted.
SET LOCAL lock_timeout = '1s';

CREATE TABLE traffic_minutes (
    integration_id  uuid NOT NULL,                  -- no foreign key: it would lock a row of integrations for each minute
    minute          timestamptz NOT NULL,
    destination     text NOT NULL,                  -- empty: what concerns no destination
    accepted        integer NOT NULL DEFAULT 0,     -- events, by the minute in their id
    duplicate       integer NOT NULL DEFAULT 0,     -- events that had been stored before
    refused         integer NOT NULL DEFAULT 0,     -- requests
    delivered       integer NOT NULL DEFAULT 0,     -- attempts that succeeded, by the minute in their id
    failed          integer NOT NULL DEFAULT 0,     -- deliveries that their last attempt failed
    retrying        integer NOT NULL DEFAULT 0,     -- attempts after which there is another
    filtered        integer NOT NULL DEFAULT 0,     -- deliveries that the filter of the destination left out
    durations       integer[] NOT NULL DEFAULT '{}',-- attempts by duration, in the buckets of runtime::traffic
    PRIMARY KEY (integration_id, minute, destination)
-- Room for heap-only updates: a row is written every few seconds for a minute.
) WITH (fillfactor = 60);
-- For the minutes that are over and those that are dropped. It grows at its right end.
CREATE INDEX traffic_minutes_minute ON traffic_minutes (minute);

-- The last additions of each process, so that one which is repeated after a lost answer counts once.
CREATE TABLE traffic_writers (
    writer    uuid PRIMARY KEY,
    sequence  bigint NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT now()
);

-- The minutes before this one are corrected, and what is added to them later is in their rows already.
CREATE TABLE traffic_closed (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    until     timestamptz NOT NULL
);
INSERT INTO traffic_closed (until) VALUES (date_trunc('minute', now()));
