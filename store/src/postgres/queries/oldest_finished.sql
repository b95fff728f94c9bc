SELECT seq, id FROM jobs WHERE state = 5 AND state_at < $1 ORDER BY state_at, seq LIMIT $2
