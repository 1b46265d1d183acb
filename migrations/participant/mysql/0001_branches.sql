-- The barrier: one row for each branch that this participant has heard of, in the same database and the same local transactions
-- as the business data. All instants are whole microseconds since 1970, UTC. For MySQL and MariaDB.
CREATE TABLE IF NOT EXISTS tcc_branches (
    -- The global transaction, as its 36 characters: this is what logs and the coordinator show, so an operator can paste it.
    -- UUIDv7 text sorts by time like its bytes do, so new rows go to the end of the tree.
    gid VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    branch_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- 1 tried, 2 refused, 3 confirmed, 4 cancelled.
    status TINYINT NOT NULL CHECK (status IN (1, 2, 3, 4)),
    -- 1: cancelled before any Try ran (an empty rollback).
    `empty` TINYINT NOT NULL CHECK (`empty` IN (0, 1)),
    -- Flips when an insert finds this row: an insert that changed a row is counted differently from one that made a row.
    found TINYINT NOT NULL DEFAULT 0,
    -- What Try asked: its type, and a SHA-256 of type and bytes. The bytes themselves are not needed again.
    type_url VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    request_fingerprint VARBINARY(32),
    -- The transaction log to ask what became of a row that is still tried.
    coordinator VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin,
    -- What Try reserved, for Confirm and Cancel.
    reserved LONGBLOB,
    -- What Try answered, repeated on every delivery.
    output_type_url VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    output_value LONGBLOB,
    refusal_code VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    refusal_message VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    -- Up to when a Try may insert; no row is deleted before this is long past.
    not_after BIGINT NOT NULL,
    -- From when on a row that is still tried asks.
    ask_after BIGINT,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    -- When the coordinator first said of a row that is still tried that it has forgotten the transaction.
    forgotten_at BIGINT,
    PRIMARY KEY (gid, branch_id),
    -- What is still tried, by when it asks; history stands apart in it and is never read.
    KEY tcc_branches_tried (status, ask_after),
    CONSTRAINT tcc_branches_empty CHECK (`empty` = 0 OR status = 4),
    CONSTRAINT tcc_branches_fingerprint CHECK ((`empty` = 1) = (request_fingerprint IS NULL)),
    CONSTRAINT tcc_branches_type CHECK ((`empty` = 1) = (type_url IS NULL)),
    CONSTRAINT tcc_branches_coordinator CHECK ((`empty` = 1) = (coordinator IS NULL)),
    CONSTRAINT tcc_branches_asks CHECK ((`empty` = 1) = (ask_after IS NULL)),
    CONSTRAINT tcc_branches_refusal CHECK ((status = 2) = (refusal_code IS NOT NULL)),
    CONSTRAINT tcc_branches_reason CHECK ((refusal_code IS NULL) = (refusal_message IS NULL)),
    CONSTRAINT tcc_branches_output CHECK ((output_type_url IS NULL) = (output_value IS NULL))
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;
