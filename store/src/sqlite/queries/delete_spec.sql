DELETE FROM specs WHERE seq = ?1
