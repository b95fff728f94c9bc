INSERT INTO usage_runs (seq, attempt, started_at, ended_at, cpu_millis, memory_bytes, gpu_millis)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
ON CONFLICT (seq, attempt) DO UPDATE
SET started_at = excluded.started_at, ended_at = excluded.ended_at, cpu_millis = excluded.cpu_millis,
    memory_bytes = excluded.memory_bytes, gpu_millis = excluded.gpu_millis
