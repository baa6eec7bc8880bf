-- The addresses of the Services that an integration delivers to. The controller writes them whenever they change, and the workers
-- dial nothing else for these destinations. An older version ignores them.
SET LOCAL lock_timeout = '1s';

ALTER TABLE integrations
    ADD COLUMN endpoints json;                      -- {"name:port": ["address:port", …], …}; null: no Service is a destination

CREATE OR REPLACE TRIGGER integrations_notify
    AFTER INSERT OR DELETE OR UPDATE OF generation, route, display_name, state, spec, secrets, endpoints, deleted_at ON integrations
    FOR EACH ROW EXECUTE FUNCTION notify_integration();
