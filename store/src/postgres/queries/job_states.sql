SELECT seq, id, state::bigint, attempt FROM jobs WHERE seq = ANY($1)
