INSERT INTO shapes (id, namespace, queue, shape) VALUES (?1, ?2, ?3, ?4)
