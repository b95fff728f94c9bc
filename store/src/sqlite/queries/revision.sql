SELECT max(floor, coalesce((SELECT max(revision) FROM events), 0)) FROM meta WHERE one = 1
