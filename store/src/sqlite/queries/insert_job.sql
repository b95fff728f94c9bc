INSERT INTO jobs (seq, id, shape_id, policy_id, owner_id, name, state, attempt, lost, state_at, placement, outcome, detail,
                  started_at, submitted_at, start_after, revision, term)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
