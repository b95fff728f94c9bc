SELECT id, name, hash, user, uid, created_at, expires_at FROM tokens ORDER BY created_at, rowid
