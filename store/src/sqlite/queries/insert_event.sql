INSERT INTO events (revision, id, shape_id, at, what, state, attempt, lost, state_at, placement, outcome, detail)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
