SELECT id, at FROM idempotency_keys ORDER BY id LIMIT $1
