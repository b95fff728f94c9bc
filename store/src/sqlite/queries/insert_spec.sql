INSERT INTO specs (seq, labels, spec) VALUES (?, ?, ?)
