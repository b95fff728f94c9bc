INSERT INTO policies (id, policy) VALUES (?1, ?2)
