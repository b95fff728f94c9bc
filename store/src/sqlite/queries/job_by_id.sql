SELECT j.id, j.seq, s.namespace, s.queue, o.user, o.uid, j.name,
       j.state, j.attempt, j.lost, j.state_at, j.placement, j.outcome, j.detail,
       j.revision, j.submitted_at, j.start_after, j.started_at, p.spec
FROM jobs j
CROSS JOIN shapes s ON s.id = j.shape_id
CROSS JOIN owners o ON o.id = j.owner_id
CROSS JOIN specs p ON p.seq = j.seq
WHERE j.id = ?1
