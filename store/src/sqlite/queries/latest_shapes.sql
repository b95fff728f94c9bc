SELECT id, namespace, queue, tasks FROM shapes ORDER BY id DESC LIMIT ?1
