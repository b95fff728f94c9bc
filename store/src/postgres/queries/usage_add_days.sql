-- A sum that would not fit stays the largest number there is.
INSERT INTO usage_days AS d (day, namespace, username, queue, runs, cpu_micros, memory_mib_millis, gpu_micros,
                             known_micros, busy_micros, peak_busy, peak_memory, energy_millijoules)
SELECT *
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
            $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
ON CONFLICT (day, namespace, username, queue) DO UPDATE
SET runs = d.runs + excluded.runs,
    cpu_micros = least(d.cpu_micros::numeric + excluded.cpu_micros, 9223372036854775807)::bigint,
    memory_mib_millis = least(d.memory_mib_millis::numeric + excluded.memory_mib_millis, 9223372036854775807)::bigint,
    gpu_micros = least(d.gpu_micros::numeric + excluded.gpu_micros, 9223372036854775807)::bigint,
    known_micros = least(d.known_micros::numeric + excluded.known_micros, 9223372036854775807)::bigint,
    busy_micros = least(d.busy_micros::numeric + excluded.busy_micros, 9223372036854775807)::bigint,
    peak_busy = greatest(d.peak_busy, excluded.peak_busy),
    peak_memory = greatest(d.peak_memory, excluded.peak_memory),
    energy_millijoules = least(d.energy_millijoules::numeric + excluded.energy_millijoules, 9223372036854775807)::bigint
