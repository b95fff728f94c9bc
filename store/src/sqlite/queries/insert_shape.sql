INSERT INTO shapes (id, namespace, queue, tasks) VALUES (?1, ?2, ?3, ?4)
