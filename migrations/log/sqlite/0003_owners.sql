-- Who drives a transaction: one run of one coordinator, by its number. 0 is nobody.
ALTER TABLE tcc_log_transactions ADD COLUMN owner INTEGER NOT NULL DEFAULT 0 CHECK (owner >= 0);

-- Every number that was ever taken. AUTOINCREMENT: a number is never given out again.
CREATE TABLE tcc_log_owners (
    owner    INTEGER PRIMARY KEY AUTOINCREMENT,
    taken_at INTEGER NOT NULL,
    -- When it last wrote only to see whether it can.
    seen_at  INTEGER NOT NULL
) STRICT;

-- The same, of whoever has not taken a number.
ALTER TABLE tcc_log_identity ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;
