-- A route that was freed stays its namespace's for a while: senders go on posting to it, with whatever they know. The last
-- namespace that had it; a row is removed when that one takes the route again, or when its time has passed.
CREATE TABLE freed_routes (
    route      text PRIMARY KEY,
    namespace  text NOT NULL,
    freed_at   timestamptz NOT NULL DEFAULT now()
);

-- A trigger, so that every way of freeing a route counts, also that of an older process.
CREATE FUNCTION keep_freed_route() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO freed_routes (route, namespace) VALUES (OLD.route, OLD.namespace)
    ON CONFLICT (route) DO UPDATE SET namespace = EXCLUDED.namespace, freed_at = EXCLUDED.freed_at;
    RETURN NULL;
END $$;
CREATE TRIGGER integrations_free_route
    AFTER UPDATE OF route, deleted_at ON integrations
    FOR EACH ROW WHEN (OLD.deleted_at IS NULL AND (NEW.deleted_at IS NOT NULL OR NEW.route <> OLD.route))
    EXECUTE FUNCTION keep_freed_route();

INSERT INTO freed_routes (route, namespace, freed_at)
SELECT DISTINCT ON (route) route, namespace, deleted_at
FROM integrations freed
WHERE deleted_at > now() - interval '7 days'
    AND NOT EXISTS (SELECT FROM integrations live WHERE live.route = freed.route AND live.deleted_at IS NULL)
ORDER BY route, deleted_at DESC;
