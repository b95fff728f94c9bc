-- The sequences come merged from the index of states, so that finished jobs are not even looked at.
SELECT j.seq, j.id, j.shape_id, j.policy_id, j.submitted_at, j.start_after,
       j.state::bigint, j.attempt, j.lost, j.state_at, j.placement, j.detail
FROM (
    SELECT seq FROM jobs WHERE state = 0 AND seq > $1
    UNION ALL
    SELECT seq FROM jobs WHERE state = 1 AND seq > $1
    UNION ALL
    SELECT seq FROM jobs WHERE state = 2 AND seq > $1
    UNION ALL
    SELECT seq FROM jobs WHERE state = 3 AND seq > $1
    UNION ALL
    SELECT seq FROM jobs WHERE state = 4 AND seq > $1
    ORDER BY seq
    LIMIT $2
) k
JOIN jobs j ON j.seq = k.seq
ORDER BY k.seq
