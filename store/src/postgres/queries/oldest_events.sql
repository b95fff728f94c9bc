SELECT revision, at FROM events ORDER BY revision LIMIT $1
