-- The schema of Grapnel's data plane.
--
-- Two rules shape it: wide rows are immutable and mutable rows are narrow; everything that grows is partitioned by day.
-- Ids of growing tables are UUIDv7, so they carry their time: a range partition on the id keeps the primary key
-- unique, and a look-up by id touches one partition.

-- The smallest UUIDv7 of an instant: bounds partitions, prunes look-ups.
CREATE FUNCTION uuidv7_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- A UUIDv7 of this moment, for rows that SQL itself makes (PostgreSQL has one of its own only from 18 on).
CREATE FUNCTION uuidv7_now() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
    || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid;

-- The instant in a UUIDv7, in milliseconds.
CREATE FUNCTION uuidv7_time(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN to_timestamp(('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0);

-- ---------------------------------------------------------------------------------------------------------------------
-- What is configured. Written by the controller, or by `grapnel dev` and `grapnel apply` from files.

CREATE TABLE integrations (
    id            uuid PRIMARY KEY,
    uid           text NOT NULL,                    -- the Kubernetes object's uid, or `file:namespace/name`
    namespace     text NOT NULL,
    name          text NOT NULL,
    generation    bigint NOT NULL,                  -- fences an older object
    writer_epoch  bigint NOT NULL DEFAULT 0,        -- fences a stale leader
    provider      text NOT NULL,
    route         text NOT NULL,
    display_name  text NOT NULL,
    state         text NOT NULL CHECK (state IN ('Active', 'DeliveryPaused', 'Disabled', 'Draining')),
    spec          json NOT NULL,                    -- the object's spec as validated
    secrets       bytea NOT NULL,                   -- sealed (AES-256-GCM); the id is the associated data
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz
);
-- The first claim of a route wins; the constraint is the arbiter.
CREATE UNIQUE INDEX integrations_live_route ON integrations (route) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX integrations_live_name ON integrations (namespace, name) WHERE deleted_at IS NULL;

-- Secrets that a provider gave in a handshake, until they are in the Secret of the Integration. The first one stays: who
-- knows the URL could send another.
CREATE TABLE captured_secrets (
    integration_id  uuid PRIMARY KEY REFERENCES integrations ON DELETE CASCADE,
    handshake       text NOT NULL,
    sealed          bytea NOT NULL,                 -- as integrations.secrets
    captured_at     timestamptz NOT NULL DEFAULT now()
);

-- When each verification secret last proved a webhook, so that an unused one can be removed.
CREATE TABLE verification_secret_uses (
    integration_id  uuid NOT NULL REFERENCES integrations ON DELETE CASCADE,
    secret          text NOT NULL,                  -- the reference, `name/key`
    last_used_at    timestamptz NOT NULL,
    PRIMARY KEY (integration_id, secret)
);

CREATE FUNCTION notify_integration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('grapnel_integrations', COALESCE(NEW.id, OLD.id)::text);
    RETURN NULL;
END $$;
-- Not for writer_epoch alone: a new leader puts its number on every row, and nobody has to read them for that.
CREATE TRIGGER integrations_notify
    AFTER INSERT OR DELETE OR UPDATE OF generation, route, display_name, state, spec, secrets, deleted_at ON integrations
    FOR EACH ROW EXECUTE FUNCTION notify_integration();

-- ---------------------------------------------------------------------------------------------------------------------
-- What was accepted. Immutable.

CREATE TABLE events (
    id                 uuid NOT NULL,
    integration_id     uuid NOT NULL,
    provider           text NOT NULL,
    external_event_id  text,
    event_type         text NOT NULL,
    subject            text,
    occurred_at        timestamptz NOT NULL,
    received_at        timestamptz NOT NULL,
    correlation_id     text NOT NULL,
    traceparent        text,                        -- W3C trace context of the provider's request, when it sent one
    source_ip          inet,
    headers            json NOT NULL,               -- [[name, value], …] in the order received, secrets redacted
    raw_body           bytea NOT NULL,              -- exactly the bytes received
    -- The provider's payload is a slice of raw_body, so it is stored once and delivered as it came. The normalized
    -- payload is built from it and the columns above: see event.rs.
    payload_key        text NOT NULL,               -- its member name in the normalized payload: data, resource
    payload_start      integer NOT NULL,
    payload_length     integer NOT NULL,
    body_form          smallint NOT NULL DEFAULT 0, -- how the body was read: 0 JSON, 1 form, 2 not at all
    delivered_as       smallint NOT NULL DEFAULT 0, -- 0 normalized, 1 the body as it came, 2 a CloudEvents envelope
    secret_index       smallint NOT NULL DEFAULT 0, -- which verification secret proved it: 0 the current one
    idempotency_key    text NOT NULL,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX events_occurred ON events (occurred_at, id);

-- The durable dedupe. The key is the first 16 bytes of the SHA-256 of the idempotency key, which begins with the
-- integration's id. Not partitioned: a key must be unique over the whole window. Pruned with the events.
CREATE TABLE idempotency_keys (
    key_hash  uuid PRIMARY KEY,
    event_id  uuid NOT NULL
);
CREATE INDEX idempotency_keys_event ON idempotency_keys USING brin (event_id) WITH (pages_per_range = 32, autosummarize = on);

-- ---------------------------------------------------------------------------------------------------------------------
-- The work. One narrow row for each event and destination, updated in place. The row is its own outbox: it is inserted
-- with queued_at set and published after the commit; the dispatcher queues what is due and what was lost.

CREATE TYPE delivery_status AS ENUM ('pending', 'processing', 'retrying', 'succeeded', 'failed');

CREATE TABLE deliveries (
    event_id           uuid NOT NULL,
    destination        text NOT NULL,
    integration_id     uuid NOT NULL,
    status             delivery_status NOT NULL DEFAULT 'pending',
    attempts           integer NOT NULL DEFAULT 0,  -- recorded attempts; the next one is number attempts + 1
    budget_start       integer NOT NULL DEFAULT 0,  -- attempts made before the last replay: a replay has a fresh budget
    triggered_by       text NOT NULL DEFAULT 'webhook' CHECK (triggered_by IN ('webhook', 'retry', 'replay')),
    queued_at          timestamptz,                 -- when its message was last published, or meant to be; NULL when finished
    due_at             timestamptz,                 -- when the dispatcher queues it; NULL while queued or finished
    lease_id           uuid,                        -- the claim that may write the next result
    lease_until        timestamptz,
    started_at         timestamptz,                 -- of the attempt under way, or the last one
    finished_at        timestamptz,                 -- set exactly in the states succeeded and failed
    last_error         text,
    replay_request_id  uuid,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (event_id, destination),
    CHECK ((finished_at IS NOT NULL) = (status IN ('succeeded', 'failed'))),
    CHECK (finished_at IS NULL OR queued_at IS NULL AND due_at IS NULL AND lease_id IS NULL),
    CHECK ((status = 'failed') = (finished_at IS NOT NULL AND last_error IS NOT NULL))
) PARTITION BY RANGE (event_id);
-- A claim changes no column of an index and none of a predicate, so it stays a heap-only update: hence no predicate
-- names the status. Claim and record find their rows by the primary key; they do not say finished_at, or the planner
-- would read deliveries_open from end to end for them.
CREATE INDEX deliveries_open ON deliveries (integration_id, destination, event_id) WHERE finished_at IS NULL;
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_failed ON deliveries (event_id) WHERE finished_at IS NOT NULL AND last_error IS NOT NULL;

CREATE TABLE delivery_attempts (
    id              uuid NOT NULL,
    event_id        uuid NOT NULL,
    integration_id  uuid NOT NULL,
    destination     text NOT NULL,
    attempt_no      integer NOT NULL,
    succeeded       boolean NOT NULL,
    http_status     smallint,
    response_body   text,
    error_message   text,
    duration_ms     integer NOT NULL,
    triggered_by    text NOT NULL,
    scheduled_at    timestamptz NOT NULL,
    started_at      timestamptz NOT NULL,
    -- By the event's id, so that an event's attempts leave with it; and each attempt is numbered once.
    PRIMARY KEY (event_id, destination, attempt_no)
) PARTITION BY RANGE (event_id);
CREATE INDEX delivery_attempts_id ON delivery_attempts (id);
CREATE INDEX delivery_attempts_failed ON delivery_attempts (id) WHERE NOT succeeded;

-- ---------------------------------------------------------------------------------------------------------------------
-- What operators asked for, and what happened. audit_entries is append-only.

CREATE TYPE replay_status AS ENUM ('queued', 'dispatched', 'completed', 'failed');

CREATE TABLE replay_requests (
    id            uuid NOT NULL,
    event_id      uuid NOT NULL,
    destination   text,                             -- NULL: all of the event's
    requested_by  text NOT NULL,
    reason        text NOT NULL,
    status        replay_status NOT NULL DEFAULT 'queued',
    created_at    timestamptz NOT NULL,
    processed_at  timestamptz,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX replay_requests_event ON replay_requests (event_id, id);
CREATE INDEX replay_requests_unfinished ON replay_requests (id) WHERE status IN ('queued', 'dispatched');

CREATE TYPE audit_entity AS ENUM ('integration', 'event', 'replay_request');

CREATE TABLE audit_entries (
    id           uuid NOT NULL,                     -- its time is the entry's
    entity_type  audit_entity NOT NULL,
    entity_id    uuid NOT NULL,
    action       text NOT NULL,
    actor        text NOT NULL,
    details      json,                              -- NULL is {}
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX audit_entries_entity ON audit_entries (entity_id, id);
CREATE INDEX audit_entries_control ON audit_entries (entity_type, id) WHERE entity_type <> 'event';
CREATE INDEX audit_entries_rare ON audit_entries (action, id) WHERE action NOT IN ('webhook.received', 'event.processed');

-- ---------------------------------------------------------------------------------------------------------------------
-- Partitions.

CREATE FUNCTION partitioned_tables() RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN ARRAY['events', 'deliveries', 'delivery_attempts', 'replay_requests', 'audit_entries'];

-- Creates the missing partitions of the UTC days from first_day to last_day; answers how many. Idempotent.
CREATE FUNCTION ensure_partitions(first_day date, last_day date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    partition text;
    created integer := 0;
BEGIN
    FOREACH parent IN ARRAY partitioned_tables() LOOP
        FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
            partition := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(partition) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', partition, parent,
                uuidv7_floor(day::timestamp AT TIME ZONE 'UTC'),
                uuidv7_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
            IF parent = 'deliveries' THEN
                -- Room for heap-only updates: a batch is claimed on the pages where it was born, before any can be pruned.
                EXECUTE format('ALTER TABLE %I SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)', partition);
            END IF;
            created := created + 1;
        END LOOP;
    END LOOP;
    RETURN created;
END $$;

-- Drops the partitions of the days before first_kept_day and answers their names. A day with unfinished deliveries is
-- kept, in all tables, until they end.
CREATE FUNCTION drop_expired_partitions(first_kept_day date) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    day text;
    parent text;
    partition text;
    unfinished boolean;
    dropped text[] := '{}';
BEGIN
    FOR day IN
        SELECT DISTINCT substring(child.relname FROM '\d{8}$')
        FROM pg_inherits
        JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = ANY (SELECT to_regclass(name) FROM unnest(partitioned_tables()) AS name)
            AND substring(child.relname FROM '\d{8}$') < to_char(first_kept_day, 'YYYYMMDD')
        ORDER BY 1
    LOOP
        IF to_regclass('deliveries_' || day) IS NOT NULL THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE finished_at IS NULL)', 'deliveries_' || day)
                INTO unfinished;
            CONTINUE WHEN unfinished;
        END IF;
        FOREACH parent IN ARRAY partitioned_tables() LOOP
            partition := parent || '_' || day;
            CONTINUE WHEN to_regclass(partition) IS NULL;
            EXECUTE format('DROP TABLE %I', partition);
            dropped := dropped || partition;
        END LOOP;
    END LOOP;
    RETURN dropped;
END $$;

-- The first id of the oldest day that is kept; NULL without partitions.
CREATE FUNCTION oldest_partition_start() RETURNS uuid LANGUAGE sql STABLE
RETURN (
    SELECT uuidv7_floor(to_date(min(substring(child.relname FROM '\d{8}$')), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC')
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = 'events'::regclass
);

-- Bodies over the page threshold are compressed: with lz4 where the server has it.
DO $$ BEGIN
    ALTER TABLE events ALTER COLUMN raw_body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN NULL;
END $$;
