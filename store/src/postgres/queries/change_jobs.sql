-- The compare-and-sets, one row for each job: from the state before its first change to that after its last. Placement and start are those
-- of the latest run and outlive it. Answered is what the rows were: what the events and the ledger need.
UPDATE jobs j
SET state = c.state, attempt = c.attempt, lost = c.lost, state_at = c.state_at, placement = coalesce(c.placement, j.placement),
    outcome = c.outcome, detail = c.detail, started_at = CASE WHEN c.starts THEN c.started_at ELSE j.started_at END,
    revision = c.revision, term = $16
FROM (
    SELECT u.*, o.revision AS old_revision, o.started_at AS old_started_at,
           CASE WHEN u.wants_placement THEN o.placement END AS old_placement
    FROM unnest($1::bigint[], $2::uuid[], $3::smallint[], $4::bigint[], $5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[],
                $9::text[], $10::smallint[], $11::text[], $12::boolean[], $13::bigint[], $14::bigint[], $15::boolean[])
         AS u (seq, id, from_state, from_attempt, state, attempt, lost, state_at, placement, outcome, detail, starts, started_at, revision,
               wants_placement)
    JOIN jobs o ON o.seq = u.seq AND o.id = u.id AND o.state = u.from_state AND o.attempt = u.from_attempt
) c
WHERE j.seq = c.seq
RETURNING j.seq, j.shape_id, j.owner_id, c.old_revision, c.old_started_at, c.old_placement
