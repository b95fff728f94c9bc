SELECT id, shape FROM shapes WHERE id = ANY($1)
