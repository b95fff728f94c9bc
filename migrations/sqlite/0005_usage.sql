-- What was used. Days are days since 1970 in UTC. What was promised is counted when a run ends, in the transaction that ends it; what was
-- seen of GPUs is added look by look. No row here refers to a job's: the days outlive the jobs.
CREATE TABLE usage_days (
    day               INTEGER NOT NULL,
    namespace         TEXT NOT NULL,
    user              TEXT NOT NULL,
    queue             TEXT NOT NULL,
    runs              INTEGER NOT NULL CHECK (runs >= 0),              -- that ended on this day
    cpu_micros        INTEGER NOT NULL CHECK (cpu_micros >= 0),        -- cores x microseconds, promised
    memory_mib_millis INTEGER NOT NULL CHECK (memory_mib_millis >= 0), -- MiB x milliseconds, promised
    gpu_micros        INTEGER NOT NULL CHECK (gpu_micros >= 0),        -- GPUs x microseconds, promised
    known_micros      INTEGER NOT NULL CHECK (known_micros >= 0),      -- GPUs x microseconds over which it was seen how busy they were
    busy_micros       INTEGER NOT NULL CHECK (busy_micros BETWEEN 0 AND known_micros),
    peak_busy         INTEGER NOT NULL CHECK (peak_busy BETWEEN 0 AND 100),
    peak_memory       INTEGER NOT NULL CHECK (peak_memory >= 0),       -- bytes on one GPU
    energy_millijoules INTEGER NOT NULL CHECK (energy_millijoules >= 0),
    PRIMARY KEY (day, namespace, user, queue)
) STRICT, WITHOUT ROWID;

-- Runs of which more is to be known than their job's row says: those that were followed by another try, and those that had GPUs that
-- somebody looked at. Start, end and promise are null for a run whose job's row has them.
CREATE TABLE usage_runs (
    seq               INTEGER NOT NULL,
    attempt           INTEGER NOT NULL,
    started_at        INTEGER,
    ended_at          INTEGER,
    cpu_millis        INTEGER,
    memory_bytes      INTEGER,
    gpu_millis        INTEGER,
    known_micros      INTEGER NOT NULL DEFAULT 0,
    busy_micros       INTEGER NOT NULL DEFAULT 0 CHECK (busy_micros BETWEEN 0 AND known_micros),
    peak_busy         INTEGER NOT NULL DEFAULT 0 CHECK (peak_busy BETWEEN 0 AND 100),
    peak_memory       INTEGER NOT NULL DEFAULT 0 CHECK (peak_memory >= 0),
    energy_millijoules INTEGER NOT NULL DEFAULT 0 CHECK (energy_millijoules >= 0),
    PRIMARY KEY (seq, attempt),
    CHECK ((ended_at IS NULL) = (started_at IS NULL) AND (ended_at IS NULL) = (gpu_millis IS NULL))
) STRICT, WITHOUT ROWID;
