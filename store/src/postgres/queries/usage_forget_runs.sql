DELETE FROM usage_runs WHERE seq = ANY($1)
