-- Since when each previous verification secret has been one, so that a secret which never proved a webhook counts as unused
-- only when it has had the time to. A row is there while the Integration lists the secret; the controller keeps it so.
CREATE TABLE previous_secrets (
    integration_id  uuid NOT NULL REFERENCES integrations ON DELETE CASCADE,
    secret          text NOT NULL,                  -- the reference, `name/key`
    listed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (integration_id, secret)
);
