INSERT INTO notices (revision, at, kind, name, what, node, cause, author, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
