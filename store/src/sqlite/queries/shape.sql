SELECT namespace, queue, tasks FROM shapes WHERE id = ?1
