-- Along the chain from the job's latest event to the one before, as far back as is asked for or is still there.
WITH RECURSIVE chain (revision) AS (
    SELECT revision FROM jobs WHERE id = $3
    UNION ALL
    SELECT e.prev FROM chain c JOIN events e ON e.revision = c.revision WHERE e.prev > $1
)
SELECT m.floor, e.*
FROM meta m
LEFT JOIN (
    SELECT e.revision, e.id, s.namespace, e.at, e.what, e.state::bigint, e.attempt, e.lost, e.state_at, e.placement, e.detail
    FROM chain c
    JOIN events e ON e.revision = c.revision
    JOIN shapes s ON s.id = e.shape_id
    WHERE e.revision > $1
    ORDER BY e.revision
    LIMIT $2
) e ON TRUE
WHERE m.one = 1
ORDER BY e.revision
