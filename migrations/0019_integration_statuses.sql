-- What the controller reports about the objects of Integrations, for those who do not ask the API server: the last state of each, and by the minute how
-- much waited and how many workers there were. Where no controller is, these tables are empty.
SET LOCAL lock_timeout = '1s';

CREATE TABLE integration_statuses (
    integration_id       uuid PRIMARY KEY,          -- no foreign key: it would lock a row of integrations with each report
    writer_epoch         bigint NOT NULL,           -- of the leader that reported it
    reported_at          timestamptz NOT NULL DEFAULT now(),    -- what is the same is not written again
    observed_generation  bigint,
    -- The condition Ready; null where the object has none.
    ready                text,
    ready_reason         text,
    ready_message        text,
    ready_since          timestamptz,
    desired_workers      integer,
    workers              integer,
    ready_workers        integer,
    limited_by           text,
    backlog              bigint,                    -- deliveries in the queues; null: they could not be read
    last_scaling         json,
    conditions           json NOT NULL              -- all of them, as in the object; bounded by the controller
-- Room for heap-only updates: a backlog changes every few seconds.
) WITH (fillfactor = 60);

-- When the controller last found everything reported that there was. Without it, an old state and an old controller would look the same.
CREATE TABLE status_confirmed (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    writer_epoch  bigint NOT NULL,
    confirmed_at  timestamptz NOT NULL
);

-- The most of each minute. A minute like the one before has no row, for at most a quarter of an hour. Kept for 35 days, as traffic_minutes.
CREATE TABLE worker_minutes (
    integration_id   uuid NOT NULL,
    minute           timestamptz NOT NULL,
    backlog          bigint,                        -- null: it could not be read
    desired_workers  integer,
    ready_workers    integer,
    PRIMARY KEY (integration_id, minute)
);
-- For those that are dropped. It grows at its right end.
CREATE INDEX worker_minutes_minute ON worker_minutes (minute);
