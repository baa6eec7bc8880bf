-- Who claims deliveries, so that claims need not run to their end whose claimant is dead: when both its session with PostgreSQL and its
-- connection to RabbitMQ have ended. A few rows for each live worker.
CREATE TABLE claimants (
    id              bigint PRIMARY KEY,                 -- the first half of the ids of its leases
    session         bigint NOT NULL,                    -- the number of the advisory lock that its session holds
    presence        text NOT NULL,                      -- the exclusive queue of its connection to RabbitMQ
    integration_id  uuid,                               -- the one that it works for; NULL: all
    is_given_up     boolean NOT NULL DEFAULT false,     -- it found out itself that both have ended, and has stopped sending
    created_at      timestamptz NOT NULL DEFAULT now()
);
