INSERT INTO objects (kind, name, value, term) VALUES ($1, $2, $3, $4)
ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value, term = excluded.term
