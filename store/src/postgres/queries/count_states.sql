SELECT state::bigint, count(*) FROM jobs GROUP BY state
