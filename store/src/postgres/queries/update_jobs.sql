UPDATE jobs j SET shape_id = u.shape_id, policy_id = u.policy_id
FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[]) AS u (seq, id, shape_id, policy_id)
WHERE j.seq = u.seq AND j.id = u.id
