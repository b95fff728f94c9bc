-- Counts entries of the index and touches no row.
SELECT seq FROM jobs INDEXED BY jobs_state WHERE state = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?3
