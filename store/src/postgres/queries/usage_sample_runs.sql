INSERT INTO usage_runs AS r (seq, attempt, known_micros, busy_micros, peak_busy, peak_memory, energy_millijoules)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
ON CONFLICT (seq, attempt) DO UPDATE
SET known_micros = least(r.known_micros::numeric + excluded.known_micros, 9223372036854775807)::bigint,
    busy_micros = least(r.busy_micros::numeric + excluded.busy_micros, 9223372036854775807)::bigint,
    peak_busy = greatest(r.peak_busy, excluded.peak_busy),
    peak_memory = greatest(r.peak_memory, excluded.peak_memory),
    energy_millijoules = least(r.energy_millijoules::numeric + excluded.energy_millijoules, 9223372036854775807)::bigint
