-- Jobs that ran and ended after ?5 and began before ?1, those that ended last first.
SELECT j.seq, j.id, j.name, s.namespace, s.queue, o.user, j.state, j.attempt, j.started_at, j.state_at, j.placement, s.shape
FROM jobs j INDEXED BY jobs_finished
CROSS JOIN shapes s ON s.id = j.shape_id
CROSS JOIN owners o ON o.id = j.owner_id
WHERE j.state = 5 AND j.state_at > ?5 AND j.started_at < ?1
  AND (?2 IS NULL OR s.namespace IN (SELECT value FROM json_each(?2)))
  AND (?3 IS NULL OR o.user IN (SELECT value FROM json_each(?3)))
  AND (?4 IS NULL OR s.queue IN (SELECT value FROM json_each(?4)))
ORDER BY j.state_at DESC, j.seq DESC
LIMIT ?6
