-- Jobs of one state, newest first. The filters are those of list_all.sql.
SELECT j.seq
FROM jobs j INDEXED BY jobs_state
WHERE j.state = ?10 AND j.seq < ?1 AND j.seq >= ?2
  AND (?4 IS NULL OR (?4 >> j.outcome) & 1)
  AND (?5 IS NULL AND ?6 IS NULL OR j.shape_id IN (
        SELECT s.id FROM shapes s
        WHERE (?5 IS NULL OR s.namespace IN (SELECT value FROM json_each(?5)))
          AND (?6 IS NULL OR s.queue IN (SELECT value FROM json_each(?6)))))
  AND (?7 IS NULL OR j.owner_id IN (SELECT o.id FROM owners o WHERE o.user IN (SELECT value FROM json_each(?7))))
  AND (?8 IS NULL OR j.name = ?8)
  -- ?9: selectors as [operator, key, value]; none of them may fail.
  AND (?9 IS NULL OR EXISTS (
        SELECT 1 FROM specs p
        WHERE p.seq = j.seq
          AND NOT EXISTS (
                SELECT 1 FROM json_each(?9) m
                WHERE (m.value ->> 0 IN ('is', 'exists'))
                      <> EXISTS (SELECT 1 FROM json_each(p.labels) l
                                 WHERE l.key = m.value ->> 1
                                   AND (m.value ->> 0 IN ('exists', 'absent') OR l.value = m.value ->> 2)))))
ORDER BY j.seq DESC
LIMIT ?3
