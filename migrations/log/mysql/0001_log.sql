-- For MySQL and MariaDB. Times are microseconds since 1970 in UTC, by the database's clock. A gid is its 16 bytes: they grow with
-- the time of minting, so new rows go to the end of the primary key. Ids are compared byte by byte.

-- Whose log this is. Participants keep the name in their rows, so a database must not change it.
CREATE TABLE IF NOT EXISTS tcc_log_identity (
    only_row TINYINT     NOT NULL PRIMARY KEY CHECK (only_row = 1),
    name     VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- When somebody who has not taken an owner's number last wrote only to see whether it can.
    seen_at  BIGINT      NOT NULL DEFAULT 0
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS tcc_log_transactions (
    gid             BINARY(16) NOT NULL PRIMARY KEY,
    try_until       BIGINT     NOT NULL,
    decide_by       BIGINT     NOT NULL,
    created_at      BIGINT     NOT NULL,
    decided_at      BIGINT,
    finished_at     BIGINT,
    next_attempt_at BIGINT     NOT NULL,
    -- The same while it is unfinished. Of an index on this, what has ended is one end, where no claim ever looks.
    due_at          BIGINT     GENERATED ALWAYS AS (CASE WHEN finished_at IS NULL THEN next_attempt_at END) STORED,
    -- Who drives it: one run of one coordinator, by its number. 0 is nobody.
    owner           BIGINT     NOT NULL CHECK (owner >= 0),
    -- Which attempt at a statement changed it last: there is no other way to be told what a statement changed.
    touched_by      BINARY(16) NOT NULL,
    branch_count    INT        NOT NULL CHECK (branch_count >= 0),
    -- 1 trying, 2 confirming, 3 confirmed, 4 cancelling, 5 cancelled
    status          TINYINT    NOT NULL CHECK (status BETWEEN 1 AND 5),
    -- 1 parallel, 2 sequential
    try_order       TINYINT    NOT NULL CHECK (try_order BETWEEN 1 AND 2),
    -- 1 at votes, 2 on request, 3 on request and open to branches
    decides         TINYINT    NOT NULL CHECK (decides BETWEEN 1 AND 3),
    -- Some branch was parked as stuck. Spares the end of every other transaction a look at its branches.
    has_stuck       TINYINT    NOT NULL DEFAULT 0 CHECK (has_stuck BETWEEN 0 AND 1),
    -- Flips when an insert finds this row: an insert that changed a row is counted differently from one that made a row.
    found           TINYINT    NOT NULL DEFAULT 0,
    initiator       VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    idempotency_key VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin,
    -- Absent in a cancelled record that was written for a gid that was never begun.
    fingerprint     BINARY(32),
    -- Why it was cancelled, as JSON.
    cause           TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    UNIQUE KEY tcc_log_transactions_by_key (initiator, idempotency_key),
    KEY tcc_log_transactions_due (due_at, gid),
    CONSTRAINT tcc_log_transactions_decided CHECK ((status = 1) = (decided_at IS NULL)),
    CONSTRAINT tcc_log_transactions_finished CHECK ((status IN (3, 5)) = (finished_at IS NOT NULL)),
    CONSTRAINT tcc_log_transactions_cause CHECK ((status IN (4, 5)) = (cause IS NOT NULL))
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS tcc_log_branches (
    gid          BINARY(16)  NOT NULL,
    branch_id    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    stuck_since  BIGINT,
    attempts     BIGINT      NOT NULL DEFAULT 0,
    -- The initiator's order.
    seq          INT         NOT NULL,
    -- 1 acknowledged, 2 settled outside
    settled      TINYINT     CHECK (settled BETWEEN 1 AND 2),
    -- 1 unreachable, 2 unknown participant, 3 no reservation, 4 other outcome
    stuck_kind   TINYINT     CHECK (stuck_kind BETWEEN 1 AND 4),
    participant  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    type_url     TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    payload      LONGBLOB    NOT NULL,
    stuck_detail TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    PRIMARY KEY (gid, branch_id),
    -- What is not stuck is one end of it.
    KEY tcc_log_branches_stuck (stuck_since, gid, branch_id),
    CONSTRAINT tcc_log_branches_since CHECK ((stuck_kind IS NULL) = (stuck_since IS NULL)),
    CONSTRAINT tcc_log_branches_detail CHECK ((stuck_kind IS NULL) = (stuck_detail IS NULL)),
    -- What is settled is not stuck.
    CONSTRAINT tcc_log_branches_settled CHECK (settled IS NULL OR stuck_kind IS NULL)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- Every number that was ever taken.
CREATE TABLE IF NOT EXISTS tcc_log_owners (
    owner    BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    taken_at BIGINT NOT NULL,
    -- When it last wrote only to see whether it can.
    seen_at  BIGINT NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- What operators did.
CREATE TABLE IF NOT EXISTS tcc_log_audit (
    sequence  BIGINT      NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at        BIGINT      NOT NULL,
    gid       BINARY(16)  NOT NULL,
    branch_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- 1 probe, 2 try anew, 3 mark settled
    action    TINYINT     NOT NULL CHECK (action BETWEEN 1 AND 3),
    actor     TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    reason    TEXT        CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    KEY tcc_log_audit_by_gid (gid, sequence)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
