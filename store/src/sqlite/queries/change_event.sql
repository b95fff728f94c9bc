-- Written before the job's row changes: what is its revision here is the event before this one, unless there is one between them (?13).
INSERT INTO events (revision, prev, id, shape_id, at, what, state, attempt, lost, state_at, placement, outcome, detail)
SELECT ?3, coalesce(?13, revision), id, shape_id, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12
FROM jobs
WHERE seq = ?1 AND id = ?2
