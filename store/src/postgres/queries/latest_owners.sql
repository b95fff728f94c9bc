SELECT id, username, uid FROM owners ORDER BY id DESC LIMIT $1
