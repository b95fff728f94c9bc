SELECT j.id, j.seq, s.namespace, s.queue, o.username, o.uid, j.name,
       j.state::bigint, j.attempt, j.lost, j.state_at, j.placement, j.detail,
       j.revision, j.submitted_at, j.start_after, j.started_at, p.spec
FROM jobs j
JOIN shapes s ON s.id = j.shape_id
JOIN owners o ON o.id = j.owner_id
JOIN specs p ON p.seq = j.seq
WHERE j.id = ANY($1)
