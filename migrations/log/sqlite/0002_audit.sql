-- What operators did. Append-only: the triggers hold even for whoever opens the database by hand.
CREATE TABLE tcc_log_audit (
    sequence  INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    gid       BLOB    NOT NULL CHECK (length(gid) = 16),
    branch_id TEXT    NOT NULL,
    -- 1 probe, 2 try anew, 3 mark settled
    action    INTEGER NOT NULL CHECK (action BETWEEN 1 AND 3),
    actor     TEXT    NOT NULL,
    reason    TEXT    NOT NULL
) STRICT;

CREATE INDEX tcc_log_audit_by_gid ON tcc_log_audit (gid, sequence);

CREATE TRIGGER tcc_log_audit_is_never_changed BEFORE UPDATE ON tcc_log_audit
BEGIN
    SELECT RAISE(ABORT, 'the audit record is append-only');
END;

CREATE TRIGGER tcc_log_audit_is_never_deleted BEFORE DELETE ON tcc_log_audit
BEGIN
    SELECT RAISE(ABORT, 'the audit record is append-only');
END;

-- REPLACE deletes what is in its way without asking the trigger above.
CREATE TRIGGER tcc_log_audit_is_never_replaced BEFORE INSERT ON tcc_log_audit
WHEN EXISTS (SELECT 1 FROM tcc_log_audit WHERE sequence = NEW.sequence)
BEGIN
    SELECT RAISE(ABORT, 'the audit record is append-only');
END;
