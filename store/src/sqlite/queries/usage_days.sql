SELECT day, namespace, user, queue, runs, cpu_micros, memory_mib_millis, gpu_micros,
       known_micros, busy_micros, peak_busy, peak_memory, energy_millijoules
FROM usage_days
WHERE day BETWEEN ?1 AND ?2
  AND (?3 IS NULL OR namespace IN (SELECT value FROM json_each(?3)))
  AND (?4 IS NULL OR user IN (SELECT value FROM json_each(?4)))
  AND (?5 IS NULL OR queue IN (SELECT value FROM json_each(?5)))
