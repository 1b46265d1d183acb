-- Times are microseconds since 1970 in UTC, by the database's clock. A gid is its 16 bytes: they grow with the time of minting,
-- so new rows go to the end of the key's index. Texts are compared byte by byte ("C"), as ids are.

-- Whose log this is. Participants keep the name in their rows, so a database must not change it.
CREATE TABLE tcc_log_identity (
    only_row smallint NOT NULL PRIMARY KEY CHECK (only_row = 1),
    name     text     NOT NULL,
    -- When somebody who has not taken an owner's number last wrote only to see whether it can.
    seen_at  bigint   NOT NULL DEFAULT 0
);

CREATE TABLE tcc_log_transactions (
    gid             bytea    NOT NULL PRIMARY KEY CHECK (length(gid) = 16),
    try_until       bigint   NOT NULL,
    decide_by       bigint   NOT NULL,
    created_at      bigint   NOT NULL,
    decided_at      bigint,
    finished_at     bigint,
    next_attempt_at bigint   NOT NULL,
    -- Who drives it: one run of one coordinator, by its number. 0 is nobody.
    owner           bigint   NOT NULL CHECK (owner >= 0),
    branch_count    integer  NOT NULL CHECK (branch_count >= 0),
    -- 1 trying, 2 confirming, 3 confirmed, 4 cancelling, 5 cancelled
    status          smallint NOT NULL CHECK (status BETWEEN 1 AND 5),
    -- 1 parallel, 2 sequential
    try_order       smallint NOT NULL CHECK (try_order BETWEEN 1 AND 2),
    -- 1 at votes, 2 on request, 3 on request and open to branches
    decides         smallint NOT NULL CHECK (decides BETWEEN 1 AND 3),
    -- Some branch was parked as stuck. Spares the end of every other transaction a look at its branches.
    has_stuck       smallint NOT NULL DEFAULT 0 CHECK (has_stuck BETWEEN 0 AND 1),
    initiator       text     COLLATE "C" NOT NULL,
    idempotency_key text     COLLATE "C",
    -- Absent in a cancelled record that was written for a gid that was never begun.
    fingerprint     bytea    CHECK (length(fingerprint) = 32),
    -- Why it was cancelled, as JSON.
    cause           text,
    CHECK ((status = 1) = (decided_at IS NULL)),
    CHECK ((status IN (3, 5)) = (finished_at IS NOT NULL)),
    CHECK ((status IN (4, 5)) = (cause IS NOT NULL))
);

CREATE UNIQUE INDEX tcc_log_transactions_by_key ON tcc_log_transactions (initiator, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Only what is unfinished, so that claiming does not slow down as the history grows.
CREATE INDEX tcc_log_transactions_due ON tcc_log_transactions (next_attempt_at, gid) WHERE finished_at IS NULL;

CREATE TABLE tcc_log_branches (
    gid          bytea    NOT NULL,
    branch_id    text     COLLATE "C" NOT NULL,
    stuck_since  bigint,
    attempts     bigint   NOT NULL DEFAULT 0,
    -- The initiator's order.
    seq          integer  NOT NULL,
    -- 1 acknowledged, 2 settled outside
    settled      smallint CHECK (settled BETWEEN 1 AND 2),
    -- 1 unreachable, 2 unknown participant, 3 no reservation, 4 other outcome
    stuck_kind   smallint CHECK (stuck_kind BETWEEN 1 AND 4),
    participant  text     COLLATE "C" NOT NULL,
    type_url     text     NOT NULL,
    payload      bytea    NOT NULL,
    stuck_detail text,
    PRIMARY KEY (gid, branch_id),
    CHECK ((stuck_kind IS NULL) = (stuck_since IS NULL)),
    CHECK ((stuck_kind IS NULL) = (stuck_detail IS NULL)),
    -- What is settled is not stuck.
    CHECK (settled IS NULL OR stuck_kind IS NULL)
);

CREATE INDEX tcc_log_branches_stuck ON tcc_log_branches (stuck_since, gid, branch_id) WHERE stuck_kind IS NOT NULL;

-- Every number that was ever taken.
CREATE TABLE tcc_log_owners (
    owner    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    taken_at bigint NOT NULL,
    -- When it last wrote only to see whether it can.
    seen_at  bigint NOT NULL
);

-- What operators did. Append-only: the triggers hold even for whoever opens the database by hand.
CREATE TABLE tcc_log_audit (
    sequence  bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        bigint   NOT NULL,
    gid       bytea    NOT NULL CHECK (length(gid) = 16),
    branch_id text     COLLATE "C" NOT NULL,
    -- 1 probe, 2 try anew, 3 mark settled
    action    smallint NOT NULL CHECK (action BETWEEN 1 AND 3),
    actor     text     NOT NULL,
    reason    text     NOT NULL
);

CREATE INDEX tcc_log_audit_by_gid ON tcc_log_audit (gid, sequence);

CREATE FUNCTION tcc_log_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit record is append-only' USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER tcc_log_audit_is_never_changed BEFORE UPDATE OR DELETE ON tcc_log_audit
    FOR EACH ROW EXECUTE FUNCTION tcc_log_audit_refuse();

CREATE TRIGGER tcc_log_audit_is_never_emptied BEFORE TRUNCATE ON tcc_log_audit
    FOR EACH STATEMENT EXECUTE FUNCTION tcc_log_audit_refuse();
