-- The job with this number.
SELECT id FROM jobs WHERE seq = ?1
