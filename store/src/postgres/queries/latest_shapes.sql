SELECT id, shape FROM shapes ORDER BY id DESC LIMIT $1
