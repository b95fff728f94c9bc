DELETE FROM usage_runs WHERE seq = ?1
