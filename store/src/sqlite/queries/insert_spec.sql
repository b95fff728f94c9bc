INSERT INTO specs (seq, labels, spec) VALUES (?1, ?2, ?3)
