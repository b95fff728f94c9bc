UPDATE meta SET expires_at = clock_timestamp() + $2 * interval '1 millisecond' WHERE one = 1 AND term = $1
