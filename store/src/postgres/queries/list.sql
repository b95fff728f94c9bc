-- Jobs of some states, newest first. What restricts nothing is null. Selectors ($9, $10, $11) are operators, keys and values; none of them
-- may fail.
SELECT j.seq
FROM jobs j
WHERE j.seq < $1 AND j.seq >= $2
  AND ($4::smallint[] IS NULL OR j.state = ANY($4))
  AND ($5::smallint[] IS NULL OR j.outcome = ANY($5))
  AND ($6::text[] IS NULL AND $7::text[] IS NULL OR j.shape_id IN (
        SELECT s.id FROM shapes s WHERE ($6 IS NULL OR s.namespace = ANY($6)) AND ($7 IS NULL OR s.queue = ANY($7))))
  AND ($8::text[] IS NULL OR j.owner_id IN (SELECT o.id FROM owners o WHERE o.username = ANY($8)))
  AND ($12::text IS NULL OR j.name = $12)
  AND ($9::text[] IS NULL OR EXISTS (
        SELECT 1 FROM specs p
        WHERE p.seq = j.seq
          AND NOT EXISTS (
                SELECT 1 FROM unnest($9, $10::text[], $11::text[]) AS m (operator, key, value)
                WHERE (m.operator IN ('is', 'exists'))
                      <> coalesce(CASE WHEN m.operator IN ('exists', 'absent') THEN p.labels ? m.key
                                       ELSE p.labels ->> m.key = m.value END, FALSE))))
ORDER BY j.seq DESC
LIMIT $3
