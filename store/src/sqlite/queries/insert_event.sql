INSERT INTO events (revision, id, shape_id, at, what, state, attempt, lost, state_at, placement, outcome, detail)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
