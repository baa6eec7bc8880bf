/* views::matching_events */
-- $1 to $5 and $8 the filters, $6 the status, $7 whether the times are wanted too.
--
-- Stops at one more than the cap: then there are more, and the ids are of no use.
SELECT count(*) AS counted,
    CASE WHEN count(*) <= 10000 THEN array_agg(id) END AS ids,
    CASE WHEN count(*) <= 10000 AND $7 THEN array_agg(occurred_at) END AS times
FROM (
    SELECT e.id, CASE WHEN $7 THEN e.occurred_at END AS occurred_at FROM events e
    WHERE ($1::text IS NULL OR e.provider = $1)
        AND ($2::text IS NULL OR e.event_type = $2)
        AND ($3::text IS NULL OR e.subject ILIKE $3)
        AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
        AND ($5::timestamptz IS NULL OR e.occurred_at < $5)
        AND ($8::uuid[] IS NULL OR e.integration_id = ANY($8))
        AND ($6::text IS NULL OR (
            SELECT CASE WHEN COALESCE(bool_and(o.status = 'succeeded'), true) THEN 'processed'
                ELSE COALESCE(max(o.status) FILTER (WHERE o.finished_at IS NULL)::text, 'failed') END
            FROM deliveries o WHERE o.event_id = e.id
        ) = $6)
    LIMIT 10001
) AS matching
