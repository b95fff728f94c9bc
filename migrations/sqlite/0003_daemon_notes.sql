-- One kind of objects more: what the daemon notes for itself. SQLite changes a CHECK only with the table.
CREATE TABLE objects_new (
    kind  INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 5),       -- 5 note of the daemon; the others as before
    name  TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 253),
    value TEXT NOT NULL CHECK (json_valid(value)),
    term  INTEGER NOT NULL CHECK (term > 0),                   -- that wrote it
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO objects_new SELECT kind, name, value, term FROM objects;

DROP TABLE objects;

ALTER TABLE objects_new RENAME TO objects;
