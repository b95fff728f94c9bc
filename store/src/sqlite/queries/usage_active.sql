-- Jobs whose run goes on.
SELECT j.seq, j.id, j.name, s.namespace, s.queue, o.user, j.state, j.attempt, j.started_at, NULL, j.placement, s.shape
FROM jobs j INDEXED BY jobs_state
CROSS JOIN shapes s ON s.id = j.shape_id
CROSS JOIN owners o ON o.id = j.owner_id
WHERE j.state IN (3, 4) AND j.started_at < ?1
  AND (?2 IS NULL OR s.namespace IN (SELECT value FROM json_each(?2)))
  AND (?3 IS NULL OR o.user IN (SELECT value FROM json_each(?3)))
  AND (?4 IS NULL OR s.queue IN (SELECT value FROM json_each(?4)))
ORDER BY j.seq DESC
