SELECT seq, id, shape_id, owner_id FROM jobs WHERE (seq, id) IN (SELECT * FROM unnest($1::bigint[], $2::uuid[]))
