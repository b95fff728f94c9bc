-- Who has the lease, and how many milliseconds are left of it.
SELECT holder_name, greatest(ceil(extract(epoch FROM expires_at - clock_timestamp()) * 1000), 0)::bigint FROM meta WHERE one = 1
