SELECT placement FROM jobs WHERE seq = ?1
