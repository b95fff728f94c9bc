-- Named things beside jobs: what an administrator sets and what the scheduler wants to remember. They are few, are read whole at a
-- start, and change seldom, so each is one JSON document; what is in it is the daemon's business.

-- kind: 0 queue, 1 cohort, 2 priority class, 3 node, 4 usage.
CREATE TABLE objects (
    kind  INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 4),
    name  TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 253),
    value TEXT NOT NULL CHECK (json_valid(value)),
    term  INTEGER NOT NULL CHECK (term > 0),                   -- that wrote it
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
