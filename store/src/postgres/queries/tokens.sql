SELECT id, name, hash, username, uid, created_at, expires_at FROM tokens ORDER BY created_at, number
