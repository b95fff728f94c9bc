SELECT day, namespace, username, queue, runs, cpu_micros, memory_mib_millis, gpu_micros,
       known_micros, busy_micros, peak_busy, peak_memory, energy_millijoules
FROM usage_days
WHERE day BETWEEN $1 AND $2
  AND ($3::text[] IS NULL OR namespace = ANY($3))
  AND ($4::text[] IS NULL OR username = ANY($4))
  AND ($5::text[] IS NULL OR queue = ANY($5))
