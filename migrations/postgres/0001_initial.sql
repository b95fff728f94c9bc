-- The job table in PostgreSQL: equal in meaning to all of migrations/sqlite so far, which says more on what columns hold. Times are
-- microseconds since 1970. References are declared for readers and not enforced on the way of a write: the writer takes the ids from its
-- own tables of names.
--
-- PostgreSQL takes no NUL in a text. Names, labels and keys are kept with U+10FFFF before a digit in its place: `0` for a NUL, `1` for a
-- U+10FFFF. JSON has an escape of its own.

-- One row: who may write, and where the table stands. Every transaction of the writer begins by changing it, which locks it.
CREATE TABLE meta (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    term          BIGINT NOT NULL CHECK (term >= 0),            -- the term that may write
    term_began_at BIGINT NOT NULL,
    holder        TEXT,                                         -- whose term it is; null: it was given back
    holder_name   TEXT NOT NULL,                                -- for people
    expires_at    TIMESTAMPTZ NOT NULL,                         -- by this server's clock; from then on anybody may begin the next term
    commits       BIGINT NOT NULL CHECK (commits >= 0),         -- transactions of all writers: says whether one of unknown outcome is there
    last_seq      BIGINT NOT NULL CHECK (last_seq >= 0),        -- the largest sequence ever given out
    last_revision BIGINT NOT NULL CHECK (last_revision >= 0),
    floor         BIGINT NOT NULL CHECK (floor BETWEEN 0 AND last_revision) -- events up to this revision are gone
) WITH (fillfactor = 10);
INSERT INTO meta (one, term, term_began_at, holder_name, expires_at, commits, last_seq, last_revision, floor)
VALUES (1, 0, 0, '', '-infinity', 0, 0, 0, 0);

-- What many jobs share, each kept once as far as the writer remembers it.
CREATE TABLE shapes (
    id        BIGINT PRIMARY KEY,
    namespace TEXT NOT NULL,
    queue     TEXT NOT NULL,
    shape     TEXT NOT NULL                                     -- JSON, namespace and queue included
);

CREATE TABLE policies (
    id     BIGINT PRIMARY KEY,
    policy TEXT NOT NULL                                        -- JSON
);

CREATE TABLE owners (
    id       BIGINT PRIMARY KEY,
    username TEXT NOT NULL,
    uid      BIGINT NOT NULL CHECK (uid BETWEEN 0 AND 4294967295)
);

-- The hot table: all that a restart reads.
-- state: 0 waiting, 1 queued, 2 starting, 3 running, 4 stopping, 5 finished.
-- state_at: 0 not before (null: held), 1 since, 2 null, 3 since, 4 deadline, 5 when it finished.
-- placement: of the latest run, JSON; it stays after the run ended.
-- outcome: 0 succeeded, 1 failed, 2 cancelled. detail: JSON of why it is stopped (4), or of the outcome (5, unless succeeded).
CREATE TABLE jobs (
    seq          BIGINT CONSTRAINT jobs_seq PRIMARY KEY CHECK (seq > 0),
    id           UUID NOT NULL CONSTRAINT jobs_id UNIQUE,       -- UUIDv7, made in the order of seq: this index is appended to
    shape_id     BIGINT NOT NULL,                               -- of shapes
    policy_id    BIGINT NOT NULL,                               -- of policies
    owner_id     BIGINT NOT NULL,                               -- of owners
    name         TEXT NOT NULL,
    state        SMALLINT NOT NULL CHECK (state BETWEEN 0 AND 5),
    attempt      BIGINT NOT NULL CHECK (attempt BETWEEN 0 AND 4294967295),
    lost         BIGINT NOT NULL CHECK (lost BETWEEN 0 AND attempt),
    state_at     BIGINT,
    placement    TEXT,
    outcome      SMALLINT CHECK (outcome BETWEEN 0 AND 2),
    detail       TEXT,
    started_at   BIGINT,                                        -- of the latest run
    submitted_at BIGINT NOT NULL,
    start_after  BIGINT,
    revision     BIGINT NOT NULL CHECK (revision > 0),          -- of the latest change
    term         BIGINT NOT NULL CHECK (term > 0),              -- that made it
    CHECK (state = 0 OR (state = 2) = (state_at IS NULL)),
    CHECK ((state = 5) = (outcome IS NOT NULL)),
    CHECK (((state = 4 OR outcome > 0) IS TRUE) = (detail IS NOT NULL)),
    CHECK (state NOT BETWEEN 2 AND 4 OR (placement IS NOT NULL AND attempt > 0)),
    CHECK (placement IS NULL OR attempt > 0),
    CHECK (state <> 2 OR started_at IS NULL),
    CHECK (state <> 3 OR started_at IS NOT DISTINCT FROM state_at)
);

-- Rows of one state in the order of submission.
CREATE INDEX jobs_state ON jobs (state, seq);
-- What retention removes next.
CREATE INDEX jobs_finished ON jobs (state_at, seq) WHERE state = 5;

-- What only readers and executors need.
CREATE TABLE specs (
    seq    BIGINT PRIMARY KEY,
    labels JSONB,                                               -- object; null where there are none
    spec   BYTEA NOT NULL                                       -- JSON, byte for byte as submitted
);

-- Every transition, in commit order. The events of one job are a chain from jobs.revision along prev: no index to keep.
CREATE TABLE events (
    revision  BIGINT PRIMARY KEY CHECK (revision > 0),
    prev      BIGINT CHECK (prev < revision),                   -- the same job's event before this one
    id        UUID NOT NULL,                                    -- the job; it may be gone
    shape_id  BIGINT NOT NULL,
    at        BIGINT NOT NULL,
    what      TEXT NOT NULL,
    state     SMALLINT NOT NULL CHECK (state BETWEEN 0 AND 5),  -- these as in jobs
    attempt   BIGINT NOT NULL,
    lost      BIGINT NOT NULL,
    state_at  BIGINT,
    placement TEXT,
    outcome   SMALLINT,
    detail    TEXT
);

CREATE TABLE idempotency_keys (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope       TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BYTEA NOT NULL CHECK (octet_length(fingerprint) = 32),
    jobs        UUID[] NOT NULL,                                -- in order
    at          BIGINT NOT NULL,
    CONSTRAINT idempotency_keys_key UNIQUE (key, scope)
);

CREATE TABLE tokens (
    number     BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BYTEA NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    username   TEXT NOT NULL,
    uid        BIGINT NOT NULL CHECK (uid BETWEEN 0 AND 4294967295),
    created_at BIGINT NOT NULL,
    expires_at BIGINT
);

-- Named things beside jobs. kind: 0 queue, 1 cohort, 2 priority class, 3 node, 4 usage, 5 note of the daemon.
CREATE TABLE objects (
    kind  SMALLINT NOT NULL CHECK (kind BETWEEN 0 AND 5),
    name  TEXT COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 253),
    value TEXT NOT NULL CHECK (value::json IS NOT NULL),        -- JSON, byte for byte; what is none is refused by the cast
    term  BIGINT NOT NULL CHECK (term > 0),                     -- that wrote it
    PRIMARY KEY (kind, name)
);

-- What was used. Days are days since 1970 in UTC. No row here refers to a job's: the days outlive the jobs.
CREATE TABLE usage_days (
    day                BIGINT NOT NULL,
    namespace          TEXT NOT NULL,
    username           TEXT NOT NULL,
    queue              TEXT NOT NULL,
    runs               BIGINT NOT NULL CHECK (runs >= 0),               -- that ended on this day
    cpu_micros         BIGINT NOT NULL CHECK (cpu_micros >= 0),         -- cores x microseconds, promised
    memory_mib_millis  BIGINT NOT NULL CHECK (memory_mib_millis >= 0),  -- MiB x milliseconds, promised
    gpu_micros         BIGINT NOT NULL CHECK (gpu_micros >= 0),         -- GPUs x microseconds, promised
    known_micros       BIGINT NOT NULL CHECK (known_micros >= 0),       -- GPUs x microseconds over which it was seen how busy they were
    busy_micros        BIGINT NOT NULL CHECK (busy_micros BETWEEN 0 AND known_micros),
    peak_busy          BIGINT NOT NULL CHECK (peak_busy BETWEEN 0 AND 100),
    peak_memory        BIGINT NOT NULL CHECK (peak_memory >= 0),        -- bytes on one GPU
    energy_millijoules BIGINT NOT NULL CHECK (energy_millijoules >= 0),
    PRIMARY KEY (day, namespace, username, queue)
);

-- Runs of which more is to be known than their job's row says. Start, end and promise are null for a run whose job's row has them.
CREATE TABLE usage_runs (
    seq                BIGINT NOT NULL,
    attempt            BIGINT NOT NULL,
    started_at         BIGINT,
    ended_at           BIGINT,
    cpu_millis         BIGINT,
    memory_bytes       BIGINT,
    gpu_millis         BIGINT,
    known_micros       BIGINT NOT NULL DEFAULT 0,
    busy_micros        BIGINT NOT NULL DEFAULT 0 CHECK (busy_micros BETWEEN 0 AND known_micros),
    peak_busy          BIGINT NOT NULL DEFAULT 0 CHECK (peak_busy BETWEEN 0 AND 100),
    peak_memory        BIGINT NOT NULL DEFAULT 0 CHECK (peak_memory >= 0),
    energy_millijoules BIGINT NOT NULL DEFAULT 0 CHECK (energy_millijoules >= 0),
    PRIMARY KEY (seq, attempt),
    CHECK ((ended_at IS NULL) = (started_at IS NULL) AND (ended_at IS NULL) = (gpu_millis IS NULL))
);
