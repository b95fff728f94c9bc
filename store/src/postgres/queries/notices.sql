-- The floor, and beside it the notices after a revision, if there are any: one statement is one snapshot.
SELECT m.floor, n.*
FROM meta m
LEFT JOIN (
    SELECT revision, at, kind::bigint, name, what, node, cause, author, reason
    FROM notices
    WHERE revision > $1 AND ($3::smallint IS NULL OR kind = $3) AND ($4::text IS NULL OR name = $4)
    ORDER BY revision
    LIMIT $2
) n ON TRUE
WHERE m.one = 1
ORDER BY n.revision
