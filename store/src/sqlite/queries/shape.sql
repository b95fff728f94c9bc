SELECT shape FROM shapes WHERE id = ?1
