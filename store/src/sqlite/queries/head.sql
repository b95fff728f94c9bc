-- The counters are what the rows say, and where rows were removed, what was remembered.
SELECT term,
       max(last_seq, coalesce((SELECT max(seq) FROM jobs), 0)),
       max(floor, coalesce((SELECT max(revision) FROM events), 0), coalesce((SELECT max(revision) FROM notices), 0)),
       floor
FROM meta
WHERE one = 1
