-- The compare-and-set. Placement and start are those of the latest run and outlive it. ?13 is its start where the row goes from before it
-- to after its end at once.
UPDATE jobs
SET state = ?4, attempt = ?5, lost = ?6, state_at = ?7, placement = coalesce(?8, placement), outcome = ?9, detail = ?10,
    started_at = CASE ?4 WHEN 2 THEN NULL WHEN 3 THEN ?7 ELSE coalesce(?13, started_at) END,
    revision = ?11, term = ?12
WHERE seq = ?1 AND state = ?2 AND attempt = ?3
