-- As head.sql, and whose term it is, after every transaction that is still on its way.
SELECT term, commits, last_seq, last_revision, floor, holder FROM meta WHERE one = 1 FOR UPDATE
