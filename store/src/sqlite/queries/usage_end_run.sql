INSERT INTO usage_runs (seq, attempt, started_at, ended_at, cpu_millis, memory_bytes, gpu_millis)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (seq, attempt) DO UPDATE
SET started_at = excluded.started_at, ended_at = excluded.ended_at, cpu_millis = excluded.cpu_millis,
    memory_bytes = excluded.memory_bytes, gpu_millis = excluded.gpu_millis
