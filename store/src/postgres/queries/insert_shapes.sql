INSERT INTO shapes (id, namespace, queue, shape) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[])
