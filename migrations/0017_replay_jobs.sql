-- Replays: jobs that deliver many deliveries again. A job is a row, and what it touches are rows of deliveries, which carry its id as their
-- replay_request_id. Ids of jobs begin with their time, as those of requests do, and have version 8, which no request has.
--
-- An older process neither feeds a job nor counts for it: the feeder reads from the deliveries what became of them.

CREATE TABLE replay_jobs (
    id                    uuid PRIMARY KEY,
    namespace             text NOT NULL,            -- of the integrations
    integration_ids       uuid[] NOT NULL,          -- those that it may touch, fixed at its creation
    is_of_namespace       boolean NOT NULL DEFAULT false, -- whether it was asked for by the namespace and not by the integration
    spec                  json NOT NULL,            -- grapnel_core::replay::ReplaySpec
    received_after        timestamptz,              -- NULL with events that are named by their ids
    received_before       timestamptz NOT NULL,
    rate_per_second       integer NOT NULL CHECK (rate_per_second BETWEEN 1 AND 5000),
    max_deliveries        bigint NOT NULL CHECK (max_deliveries > 0),
    reason                text NOT NULL,

    desired_state         text NOT NULL DEFAULT 'Running' CHECK (desired_state IN ('Running', 'Paused', 'Cancelled')),
    state                 text NOT NULL DEFAULT 'Pending' CHECK (state IN
        ('Pending', 'Running', 'Paused', 'Cancelling', 'Cancelled', 'Completed', 'Failed')),
    state_reason          text,                     -- a word such as TooManyFailures
    state_message         text,

    -- All in deliveries. Of those that it feeds, the others are under way.
    matched               bigint NOT NULL DEFAULT 0, -- at its creation
    matched_is_exact      boolean NOT NULL DEFAULT false, -- else there are at least so many
    fed                   bigint NOT NULL DEFAULT 0,
    skipped_unfinished    bigint NOT NULL DEFAULT 0,
    skipped_succeeded     bigint NOT NULL DEFAULT 0,
    skipped_gone          bigint NOT NULL DEFAULT 0,
    succeeded             bigint NOT NULL DEFAULT 0,
    failed                bigint NOT NULL DEFAULT 0,

    -- What keeps the rate, whoever feeds: the deliveries that may be fed, as of a time.
    credit                float8 NOT NULL DEFAULT 0,
    credited_at           timestamptz,
    recent_attempts       bigint NOT NULL DEFAULT 0, -- the last 50, the newest in the lowest bit; 1 is a failure

    requested_by          text,                     -- as the caller said
    actor                 text NOT NULL,            -- who was authenticated
    created_at            timestamptz NOT NULL DEFAULT now(),
    started_at            timestamptz,
    finished_at           timestamptz,
    updated_at            timestamptz NOT NULL DEFAULT now(),

    -- Of the Kubernetes object that it was made for.
    object_uid            uuid UNIQUE,
    object_namespace      text,
    object_name           text,
    spec_hash             text,
    run_id                text,
    object_desired_state  text,                     -- as it was last taken over from the object
    object_rate           integer,                  -- as it was last taken over from the object

    CHECK ((finished_at IS NOT NULL) = (state IN ('Cancelled', 'Completed', 'Failed')))
);
-- There are few: a look at all of them costs nothing.
CREATE INDEX replay_jobs_unfinished ON replay_jobs (id) WHERE finished_at IS NULL;
CREATE INDEX replay_jobs_object ON replay_jobs (object_namespace, object_name) WHERE object_name IS NOT NULL;

-- The destinations of a job, each with its own position: one that takes nothing now does not hold up the others.
CREATE TABLE replay_destinations (
    job_id          uuid NOT NULL REFERENCES replay_jobs ON DELETE CASCADE,
    integration_id  uuid NOT NULL,
    destination     text NOT NULL,
    cursor_event    uuid,                           -- the deliveries of events up to this one are fed or skipped, in the order of the job
    is_done         boolean NOT NULL DEFAULT false,
    matched         bigint NOT NULL DEFAULT 0,      -- as in replay_jobs
    first_event     uuid,                           -- the oldest event of these
    fed             bigint NOT NULL DEFAULT 0,
    skipped         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, integration_id, destination)
);

-- The deliveries that a job has fed and whose end it has not counted. As many as are under way, and those that wait for a retry.
CREATE TABLE replay_deliveries (
    job_id          uuid NOT NULL REFERENCES replay_jobs ON DELETE CASCADE,
    event_id        uuid NOT NULL,
    destination     text NOT NULL,
    integration_id  uuid NOT NULL,
    attempts        integer NOT NULL,               -- that were counted
    look_at         timestamptz NOT NULL,           -- a delivery that waits for its next attempt is not looked at before
    outcome         text CHECK (outcome IN ('succeeded', 'failed')), -- set by another replay that took it before its end was counted
    PRIMARY KEY (job_id, event_id, destination)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX replay_deliveries_look ON replay_deliveries (job_id, look_at);
-- For other replays of the same delivery.
CREATE INDEX replay_deliveries_delivery ON replay_deliveries (event_id, destination);
