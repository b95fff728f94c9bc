-- Along the chain from the job's latest event to the one before, as far back as is asked for or is still there.
WITH RECURSIVE chain (revision) AS (
    SELECT revision FROM jobs WHERE id = ?3
    UNION ALL
    SELECT e.prev FROM chain c CROSS JOIN events e ON e.revision = c.revision WHERE e.prev > ?1
)
SELECT e.revision, e.id, s.namespace, e.at, e.what, e.state, e.attempt, e.lost, e.state_at, e.placement, e.outcome, e.detail
FROM chain c
CROSS JOIN events e ON e.revision = c.revision
CROSS JOIN shapes s ON s.id = e.shape_id
WHERE e.revision > ?1
ORDER BY e.revision
LIMIT ?2
