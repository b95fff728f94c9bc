INSERT INTO events (revision, prev, id, shape_id, at, what, state, attempt, lost, state_at, placement, outcome, detail)
SELECT *
FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[], $6::text[], $7::smallint[], $8::bigint[], $9::bigint[],
            $10::bigint[], $11::text[], $12::smallint[], $13::text[])
