-- The floor, and beside it the events after a revision, if there are any: one statement is one snapshot.
SELECT m.floor, e.*
FROM meta m
LEFT JOIN (
    SELECT e.revision, e.id, s.namespace, e.at, e.what, e.state::bigint, e.attempt, e.lost, e.state_at, e.placement, e.detail
    FROM events e
    JOIN shapes s ON s.id = e.shape_id
    WHERE e.revision > $1
    ORDER BY e.revision
    LIMIT $2
) e ON TRUE
WHERE m.one = 1
ORDER BY e.revision
