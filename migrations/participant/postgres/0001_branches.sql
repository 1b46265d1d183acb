-- The barrier: one row for each branch that this participant has heard of, in the same database and the same local transactions
-- as the business data. All instants are whole microseconds since 1970, UTC.
CREATE TABLE tcc_branches (
    -- The global transaction, as its 36 characters: this is what logs and the coordinator show, so an operator can paste it.
    -- UUIDv7 text sorts by time like its bytes do, so new rows go to the end of the tree.
    gid TEXT COLLATE "C" NOT NULL,
    branch_id TEXT COLLATE "C" NOT NULL,
    -- 1 tried, 2 refused, 3 confirmed, 4 cancelled.
    status SMALLINT NOT NULL CHECK (status IN (1, 2, 3, 4)),
    -- 1: cancelled before any Try ran (an empty rollback).
    empty SMALLINT NOT NULL CHECK (empty IN (0, 1)),
    -- What Try asked: its type, and a SHA-256 of type and bytes. The bytes themselves are not needed again.
    type_url TEXT,
    request_fingerprint BYTEA,
    -- The transaction log to ask what became of a row that is still tried.
    coordinator TEXT,
    -- What Try reserved, for Confirm and Cancel.
    reserved BYTEA,
    -- What Try answered, repeated on every delivery.
    output_type_url TEXT,
    output_value BYTEA,
    refusal_code TEXT,
    refusal_message TEXT,
    -- Up to when a Try may insert; no row is deleted before this is long past.
    not_after BIGINT NOT NULL,
    -- From when on a row that is still tried asks.
    ask_after BIGINT,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    -- When the coordinator first said of a row that is still tried that it has forgotten the transaction.
    forgotten_at BIGINT,
    PRIMARY KEY (gid, branch_id),
    CHECK (empty = 0 OR status = 4),
    CHECK ((empty = 1) = (request_fingerprint IS NULL)),
    CHECK ((empty = 1) = (type_url IS NULL)),
    CHECK ((empty = 1) = (coordinator IS NULL)),
    CHECK ((empty = 1) = (ask_after IS NULL)),
    CHECK ((status = 2) = (refusal_code IS NOT NULL)),
    CHECK ((refusal_code IS NULL) = (refusal_message IS NULL)),
    CHECK ((output_type_url IS NULL) = (output_value IS NULL))
);

-- Holds what is still tried and nothing else, so it does not grow with history.
CREATE INDEX tcc_branches_tried ON tcc_branches (ask_after) WHERE status = 1;

-- What waits for an operator, in the order in which it is listed. Nearly always empty.
CREATE INDEX tcc_branches_forgotten ON tcc_branches (gid, branch_id) WHERE status = 1 AND forgotten_at IS NOT NULL;
