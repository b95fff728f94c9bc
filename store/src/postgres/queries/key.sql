SELECT fingerprint, jobs, at FROM idempotency_keys WHERE scope = $1 AND key = $2
