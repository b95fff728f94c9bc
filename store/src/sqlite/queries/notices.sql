SELECT revision, at, kind, name, what, node, cause, author, reason
FROM notices
WHERE revision > ?1 AND (?3 IS NULL OR kind = ?3) AND (?4 IS NULL OR name = ?4)
ORDER BY revision
LIMIT ?2
