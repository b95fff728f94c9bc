SELECT max(floor, coalesce((SELECT max(revision) FROM events), 0), coalesce((SELECT max(revision) FROM notices), 0)) FROM meta WHERE one = 1
