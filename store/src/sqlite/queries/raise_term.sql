UPDATE meta SET term = ?1 WHERE one = 1
