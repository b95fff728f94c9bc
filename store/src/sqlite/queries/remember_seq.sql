UPDATE meta SET last_seq = max(last_seq, (SELECT max(seq) FROM jobs)) WHERE one = 1
