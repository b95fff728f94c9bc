INSERT INTO policies (id, policy) SELECT * FROM unnest($1::bigint[], $2::text[])
