/* views::matching_open */
-- $1 to $5 and $8 the filters, $6 the status, $7 whether the times are wanted too.
--
-- Stops at one more than the cap: then there are more, and the ids are of no use.
-- max(o.status) goes by the declared order of delivery_status.
SELECT count(*) AS counted,
    CASE WHEN count(*) <= 10000 THEN array_agg(id) END AS ids,
    CASE WHEN count(*) <= 10000 AND $7 THEN array_agg(occurred_at) END AS times
FROM (
    SELECT d.event_id AS id,
        CASE WHEN $7 THEN (SELECT e.occurred_at FROM events e WHERE e.id = d.event_id) END AS occurred_at
    FROM deliveries d
    WHERE d.finished_at IS NULL AND d.status::text = $6
        AND (
            SELECT max(o.status) = d.status
                AND min(o.destination) FILTER (WHERE o.status = d.status) = d.destination
            FROM deliveries o WHERE o.event_id = d.event_id AND o.finished_at IS NULL
        )
        AND ($8::uuid[] IS NULL OR d.integration_id = ANY($8))
        AND (
            ($1::text IS NULL AND $2::text IS NULL AND $3::text IS NULL
                AND $4::timestamptz IS NULL AND $5::timestamptz IS NULL)
            OR (
                SELECT true FROM events e
                WHERE e.id = d.event_id
                    AND ($1::text IS NULL OR e.provider = $1)
                    AND ($2::text IS NULL OR e.event_type = $2)
                    AND ($3::text IS NULL OR e.subject ILIKE $3)
                    AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
                    AND ($5::timestamptz IS NULL OR e.occurred_at < $5)
            )
        )
    LIMIT 10001
) AS matching
