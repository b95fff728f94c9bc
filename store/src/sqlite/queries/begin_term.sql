UPDATE meta SET term = term + 1, term_began_at = ?1 WHERE one = 1
