-- The job table. Its keys grow with the submission sequence, so that a submit appends everywhere and the millionth is as cheap
-- as the first. CHECKs repeat what the state machine promises; references are declared for readers and for
-- PRAGMA foreign_key_check, but not enforced on the way of a write (the writer takes the ids from its own tables of names).

-- One row: what cannot be derived from the other tables.
CREATE TABLE meta (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    term          INTEGER NOT NULL CHECK (term >= 0),          -- the term that may write
    term_began_at INTEGER NOT NULL,                            -- microseconds since 1970, as every time here
    last_seq      INTEGER NOT NULL CHECK (last_seq >= 0),      -- at least the largest sequence ever removed
    floor         INTEGER NOT NULL CHECK (floor >= 0)          -- events up to this revision are gone
) STRICT;
INSERT INTO meta (one, term, term_began_at, last_seq, floor) VALUES (1, 0, 0, 0, 0);

-- What many jobs share, each kept once as far as the writer remembers it. A duplicate costs a row and breaks nothing, which
-- spares these tables an index in random order.
CREATE TABLE shapes (
    id        INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    queue     TEXT NOT NULL,
    shape     TEXT NOT NULL                                    -- JSON, namespace and queue included
) STRICT;

CREATE TABLE policies (
    id     INTEGER PRIMARY KEY,
    policy TEXT NOT NULL                                       -- JSON
) STRICT;

CREATE TABLE owners (
    id   INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    uid  INTEGER NOT NULL CHECK (uid BETWEEN 0 AND 4294967295)
) STRICT;

-- The hot table: all that a restart reads.
-- state: 0 waiting, 1 queued, 2 starting, 3 running, 4 stopping, 5 finished.
-- state_at: 0 not before (null: held), 1 since, 2 null, 3 since, 4 deadline, 5 when it finished.
-- placement: of the latest run, JSON; it stays after the run ended.
-- outcome: 0 succeeded, 1 failed, 2 cancelled. detail: JSON of why it is stopped (4), or of the outcome (5, unless succeeded).
CREATE TABLE jobs (
    seq          INTEGER PRIMARY KEY CHECK (seq > 0),
    id           BLOB NOT NULL UNIQUE CHECK (length(id) = 16), -- UUIDv7, made in the order of seq: this index is appended to
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
    started_at   INTEGER,                                      -- of the latest run
    submitted_at INTEGER NOT NULL,
    start_after  INTEGER,
    revision     INTEGER NOT NULL CHECK (revision > 0),        -- of the latest change
    term         INTEGER NOT NULL CHECK (term > 0),            -- that made it
    CHECK (state = 0 OR (state = 2) = (state_at IS NULL)),
    CHECK ((state = 5) = (outcome IS NOT NULL)),
    CHECK ((state = 4 OR outcome > 0) IS TRUE = (detail IS NOT NULL)),
    CHECK (state NOT IN (2, 3, 4) OR (placement IS NOT NULL AND attempt > 0)),
    CHECK (placement IS NULL OR attempt > 0),
    CHECK (state <> 2 OR started_at IS NULL),
    CHECK (state <> 3 OR started_at IS state_at)
) STRICT;

-- Rows of one state in the order of submission. Entries are added at the end of their state's stretch.
CREATE INDEX jobs_state ON jobs (state);
-- What retention removes next.
CREATE INDEX jobs_finished ON jobs (state_at) WHERE state = 5;

-- What only readers and executors need.
CREATE TABLE specs (
    seq    INTEGER PRIMARY KEY REFERENCES jobs (seq),
    labels TEXT,                                               -- JSON object; null where there are none
    spec   BLOB NOT NULL
) STRICT;

-- Every transition, in commit order. The events of one job are a chain from jobs.revision along prev: no index to keep.
CREATE TABLE events (
    revision  INTEGER PRIMARY KEY CHECK (revision > 0),
    prev      INTEGER CHECK (prev < revision),                 -- the same job's event before this one
    id        BLOB NOT NULL,                                   -- the job; it may be gone
    shape_id  INTEGER NOT NULL REFERENCES shapes (id),
    at        INTEGER NOT NULL,
    what      TEXT NOT NULL,
    state     INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),  -- these as in jobs
    attempt   INTEGER NOT NULL,
    lost      INTEGER NOT NULL,
    state_at  INTEGER,
    placement TEXT,
    outcome   INTEGER,
    detail    TEXT
) STRICT;

CREATE TABLE idempotency_keys (
    id          INTEGER PRIMARY KEY,
    scope       TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    jobs        BLOB NOT NULL CHECK (length(jobs) % 16 = 0),   -- ids, 16 bytes each, in order
    at          INTEGER NOT NULL,
    UNIQUE (key, scope)                                         -- keys that grow with time are appended, whoever sends them
) STRICT;

CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    user       TEXT NOT NULL,
    uid        INTEGER NOT NULL CHECK (uid BETWEEN 0 AND 4294967295),
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT;
