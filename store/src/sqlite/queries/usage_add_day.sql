-- A sum that SQLite would make a fraction of stays the largest number there is.
INSERT INTO usage_days (day, namespace, user, queue, runs, cpu_micros, memory_mib_millis, gpu_micros,
                        known_micros, busy_micros, peak_busy, peak_memory, energy_millijoules)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
ON CONFLICT (day, namespace, user, queue) DO UPDATE
SET runs = runs + excluded.runs,
    cpu_micros = min(cpu_micros + excluded.cpu_micros, 9223372036854775807),
    memory_mib_millis = min(memory_mib_millis + excluded.memory_mib_millis, 9223372036854775807),
    gpu_micros = min(gpu_micros + excluded.gpu_micros, 9223372036854775807),
    known_micros = min(known_micros + excluded.known_micros, 9223372036854775807),
    busy_micros = min(busy_micros + excluded.busy_micros, 9223372036854775807),
    peak_busy = max(peak_busy, excluded.peak_busy),
    peak_memory = max(peak_memory, excluded.peak_memory),
    energy_millijoules = min(energy_millijoules + excluded.energy_millijoules, 9223372036854775807)
