-- Both tables are read in the order of their keys and merged: nothing is sorted.
SELECT revision, at FROM events
UNION ALL
SELECT revision, at FROM notices
ORDER BY revision
LIMIT ?1
