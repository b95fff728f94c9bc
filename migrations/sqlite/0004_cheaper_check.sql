-- A list of three in a CHECK has SQLite make a table of that list, and look there, for every row that is written: a sixth of what the change
-- of a job costs. A range is compared. SQLite changes a CHECK only with the table; all else is as it was.
CREATE TABLE jobs_new (
    seq          INTEGER PRIMARY KEY CHECK (seq > 0),
    id           BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    shape_id     INTEGER NOT NULL REFERENCES shapes (id),
    policy_id    INTEGER NOT NULL REFERENCES policies (id),
    owner_id     INTEGER NOT NULL REFERENCES owners (id),
    name         TEXT NOT NULL,
    state        INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
    attempt      INTEGER NOT NULL CHECK (attempt >= 0),
    lost         INTEGER NOT NULL CHECK (lost BETWEEN 0 AND attempt),
    state_at     INTEGER,
    placement    TEXT,
    outcome      INTEGER CHECK (outcome BETWEEN 0 AND 2),
    detail       TEXT,
    started_at   INTEGER,
    submitted_at INTEGER NOT NULL,
    start_after  INTEGER,
    revision     INTEGER NOT NULL CHECK (revision > 0),
    term         INTEGER NOT NULL CHECK (term > 0),
    CHECK (state = 0 OR (state = 2) = (state_at IS NULL)),
    CHECK ((state = 5) = (outcome IS NOT NULL)),
    CHECK ((state = 4 OR outcome > 0) IS TRUE = (detail IS NOT NULL)),
    CHECK (state NOT BETWEEN 2 AND 4 OR (placement IS NOT NULL AND attempt > 0)),
    CHECK (placement IS NULL OR attempt > 0),
    CHECK (state <> 2 OR started_at IS NULL),
    CHECK (state <> 3 OR started_at IS state_at)
) STRICT;

INSERT INTO jobs_new SELECT * FROM jobs;

DROP TABLE jobs;

ALTER TABLE jobs_new RENAME TO jobs;

CREATE INDEX jobs_state ON jobs (state);

CREATE INDEX jobs_finished ON jobs (state_at) WHERE state = 5;
