/* views::events_of_request */
-- The ids of a request's events are of its millisecond and after its own, so no index on request_id is needed.
SELECT e.id FROM events e
WHERE e.id > $1 AND e.id < uuidv7_floor(uuidv7_time($1) + interval '1 millisecond') AND e.request_id = $1
ORDER BY e.id LIMIT $2
