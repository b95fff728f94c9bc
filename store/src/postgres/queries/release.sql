UPDATE meta SET holder = NULL, expires_at = clock_timestamp() WHERE one = 1 AND term = $1
