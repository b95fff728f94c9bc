-- Counts entries of the index.
SELECT seq FROM jobs WHERE state = $1 AND seq < $2 ORDER BY seq DESC OFFSET $3 LIMIT 1
