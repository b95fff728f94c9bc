-- Takes the lease and begins the next term: where it was given back, where it has run out, or from oneself ($1).
UPDATE meta
SET term = term + 1, term_began_at = $3, holder = $1, holder_name = $2, commits = commits + 1,
    expires_at = clock_timestamp() + $4 * interval '1 millisecond'
WHERE one = 1 AND (holder IS NULL OR holder = $1 OR expires_at <= clock_timestamp())
RETURNING term
