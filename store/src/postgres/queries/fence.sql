-- The first statement of every transaction: it holds only in the term $1 and after $2 transactions, counts this one, says where the table
-- stands after it, and renews the lease. The row stays locked to the end of the transaction.
UPDATE meta
SET commits = commits + 1, last_seq = $3, last_revision = $4, expires_at = clock_timestamp() + $5 * interval '1 millisecond'
WHERE one = 1 AND term = $1 AND commits = $2
