SELECT term, commits, last_seq, last_revision, floor FROM meta WHERE one = 1
