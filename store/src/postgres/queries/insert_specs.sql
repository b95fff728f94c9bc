INSERT INTO specs (seq, labels, spec)
SELECT s.seq, s.labels::jsonb, s.spec FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS s (seq, labels, spec)
