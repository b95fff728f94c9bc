INSERT INTO owners (id, user, uid) VALUES (?1, ?2, ?3)
