-- Ids in a range: how a prefix becomes a job.
SELECT id FROM jobs WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3
