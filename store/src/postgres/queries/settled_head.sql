-- As head.sql, after every transaction that is still on its way.
SELECT term, commits, last_seq, last_revision, floor FROM meta WHERE one = 1 FOR UPDATE
