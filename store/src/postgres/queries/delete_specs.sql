DELETE FROM specs WHERE seq = ANY($1)
