SELECT state, attempt FROM jobs WHERE seq = ?1 AND id = ?2
