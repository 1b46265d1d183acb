-- Times are microseconds since 1970 in UTC, by the log's clock. A gid is its 16 bytes: they grow with the time of minting, so
-- new rows go to the end of the table, and the tables need no rowid beside their key.

-- Whose log this is. Participants keep the name in their rows, so a database must not change it.
CREATE TABLE tcc_log_identity (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    name     TEXT    NOT NULL
) STRICT;

CREATE TABLE tcc_log_transactions (
    gid             BLOB    NOT NULL PRIMARY KEY CHECK (length(gid) = 16),
    -- 1 trying, 2 confirming, 3 confirmed, 4 cancelling, 5 cancelled
    status          INTEGER NOT NULL CHECK (status BETWEEN 1 AND 5),
    initiator       TEXT    NOT NULL,
    idempotency_key TEXT,
    -- Absent in a cancelled record that was written for a gid that was never begun.
    fingerprint     BLOB    CHECK (length(fingerprint) = 32),
    -- 1 parallel, 2 sequential
    try_order       INTEGER NOT NULL CHECK (try_order BETWEEN 1 AND 2),
    -- 1 at votes, 2 on request, 3 on request and open to branches
    decides         INTEGER NOT NULL CHECK (decides BETWEEN 1 AND 3),
    branch_count    INTEGER NOT NULL CHECK (branch_count >= 0),
    -- Some branch was parked as stuck. Spares the end of every other transaction a look at its branches.
    has_stuck       INTEGER NOT NULL DEFAULT 0 CHECK (has_stuck BETWEEN 0 AND 1),
    try_until       INTEGER NOT NULL,
    decide_by       INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    decided_at      INTEGER,
    finished_at     INTEGER,
    next_attempt_at INTEGER NOT NULL,
    -- Why it was cancelled, as JSON.
    cause           TEXT,
    CHECK ((status = 1) = (decided_at IS NULL)),
    CHECK ((status IN (3, 5)) = (finished_at IS NOT NULL)),
    CHECK ((status IN (4, 5)) = (cause IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX tcc_log_transactions_by_key ON tcc_log_transactions (initiator, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Only what is unfinished, so that claiming does not slow down as the history grows.
CREATE INDEX tcc_log_transactions_due ON tcc_log_transactions (next_attempt_at) WHERE finished_at IS NULL;

CREATE TABLE tcc_log_branches (
    gid          BLOB    NOT NULL,
    branch_id    TEXT    NOT NULL,
    -- The initiator's order.
    seq          INTEGER NOT NULL,
    participant  TEXT    NOT NULL,
    type_url     TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    -- 1 acknowledged, 2 settled outside
    settled      INTEGER CHECK (settled BETWEEN 1 AND 2),
    attempts     INTEGER NOT NULL DEFAULT 0,
    -- 1 unreachable, 2 unknown participant, 3 no reservation, 4 other outcome
    stuck_kind   INTEGER CHECK (stuck_kind BETWEEN 1 AND 4),
    stuck_since  INTEGER,
    stuck_detail TEXT,
    PRIMARY KEY (gid, branch_id),
    CHECK ((stuck_kind IS NULL) = (stuck_since IS NULL)),
    CHECK ((stuck_kind IS NULL) = (stuck_detail IS NULL)),
    -- What is settled is not stuck.
    CHECK (settled IS NULL OR stuck_kind IS NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX tcc_log_branches_stuck ON tcc_log_branches (stuck_since, gid, branch_id) WHERE stuck_kind IS NOT NULL;
