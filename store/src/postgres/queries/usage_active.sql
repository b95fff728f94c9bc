-- Jobs whose run goes on.
SELECT j.seq, j.id, j.name, s.namespace, s.queue, o.username, j.state::bigint, j.attempt, j.started_at, NULL::bigint, j.placement, s.shape
FROM jobs j
JOIN shapes s ON s.id = j.shape_id
JOIN owners o ON o.id = j.owner_id
WHERE j.state IN (3, 4) AND j.started_at < $1
  AND ($2::text[] IS NULL OR s.namespace = ANY($2))
  AND ($3::text[] IS NULL OR o.username = ANY($3))
  AND ($4::text[] IS NULL OR s.queue = ANY($4))
ORDER BY j.seq DESC
