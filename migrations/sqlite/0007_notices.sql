-- What happened to things that are no jobs: GPUs, nodes, queues. They have their places in the one sequence of revisions, between the events of
-- jobs, and go with them when old ones are removed. They are few: no index but the sequence.
CREATE TABLE notices (
    revision INTEGER PRIMARY KEY CHECK (revision > 0),         -- of no event of a job
    at       INTEGER NOT NULL,
    kind     INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 4),    -- 0 GPU, 1 node, 2 queue, 3 cohort, 4 priority class
    name     TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 253),
    what     TEXT NOT NULL CHECK (length(what) > 0),
    node     TEXT,                                             -- where it is
    cause    TEXT,                                             -- of a closed set, for programs
    author   TEXT,                                             -- who did it, where somebody did
    reason   TEXT                                              -- for people
) STRICT;
