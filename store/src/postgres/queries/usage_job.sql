SELECT j.seq, j.id, j.name, s.namespace, s.queue, o.username, j.state::bigint, j.attempt, j.started_at,
       CASE j.state WHEN 5 THEN j.state_at END, j.placement, s.shape
FROM jobs j
JOIN shapes s ON s.id = j.shape_id
JOIN owners o ON o.id = j.owner_id
WHERE j.id = $1
