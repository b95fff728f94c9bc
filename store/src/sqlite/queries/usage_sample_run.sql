INSERT INTO usage_runs (seq, attempt, known_micros, busy_micros, peak_busy, peak_memory, energy_millijoules)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (seq, attempt) DO UPDATE
SET known_micros = min(known_micros + excluded.known_micros, 9223372036854775807),
    busy_micros = min(busy_micros + excluded.busy_micros, 9223372036854775807),
    peak_busy = max(peak_busy, excluded.peak_busy),
    peak_memory = max(peak_memory, excluded.peak_memory),
    energy_millijoules = min(energy_millijoules + excluded.energy_millijoules, 9223372036854775807)
