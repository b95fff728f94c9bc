INSERT INTO owners (id, username, uid) SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])
