-- Sessions of the console: who is logged in, until when. The id is in the browser's cookie, and only its hash is here; the credential is sealed with a
-- key that only the processes which serve the console have. There are as many rows as people look, so nothing is partitioned.
SET LOCAL lock_timeout = '1s';

CREATE TABLE console_sessions (
    id_hash     bytea PRIMARY KEY CHECK (octet_length(id_hash) = 32),   -- SHA-256
    owner       text NOT NULL,                                         -- who logged in, as the audit trail names it
    credential  bytea NOT NULL,                                        -- sealed; it is judged again for each request
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
-- For the oldest sessions of one owner, and for those that are over.
CREATE INDEX console_sessions_owner ON console_sessions (owner, created_at);
CREATE INDEX console_sessions_expiry ON console_sessions (expires_at);
