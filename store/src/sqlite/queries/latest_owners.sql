SELECT id, user, uid FROM owners ORDER BY id DESC LIMIT ?1
