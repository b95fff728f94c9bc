SELECT e.revision, e.id, s.namespace, e.at, e.what, e.state, e.attempt, e.lost, e.state_at, e.placement, e.outcome, e.detail
FROM events e
CROSS JOIN shapes s ON s.id = e.shape_id
WHERE e.revision > ?1
ORDER BY e.revision
LIMIT ?2
