INSERT INTO jobs (seq, id, shape_id, policy_id, owner_id, name, state, attempt, lost, state_at, placement, outcome, detail,
                  started_at, submitted_at, start_after, revision, term)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
