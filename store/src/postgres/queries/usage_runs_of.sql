SELECT seq, attempt, started_at, ended_at, cpu_millis, memory_bytes, gpu_millis,
       known_micros, busy_micros, peak_busy, peak_memory, energy_millijoules
FROM usage_runs
WHERE seq = ANY($1)
ORDER BY seq, attempt
