SELECT max(seq) FROM jobs WHERE seq < $1
