INSERT INTO idempotency_keys (scope, key, fingerprint, jobs, at)
SELECT k.scope, k.key, k.fingerprint, k.jobs::uuid[], k.at
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[]) WITH ORDINALITY AS k (scope, key, fingerprint, jobs, at, place)
ORDER BY k.place
