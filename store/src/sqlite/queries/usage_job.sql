SELECT j.seq, j.id, j.name, s.namespace, s.queue, o.user, j.state, j.attempt, j.started_at,
       CASE j.state WHEN 5 THEN j.state_at END, j.placement, s.shape
FROM jobs j
CROSS JOIN shapes s ON s.id = j.shape_id
CROSS JOIN owners o ON o.id = j.owner_id
WHERE j.id = ?1
