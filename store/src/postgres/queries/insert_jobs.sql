INSERT INTO jobs (seq, id, shape_id, policy_id, owner_id, name, state, attempt, lost, state_at, placement, outcome, detail,
                  started_at, submitted_at, start_after, revision, term)
SELECT *, $18::bigint
FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::smallint[], $8::bigint[], $9::bigint[],
            $10::bigint[], $11::text[], $12::smallint[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[])
