-- The audit record is append-only: the triggers hold even for whoever opens the database by hand. They cannot stop TRUNCATE or
-- DROP: do not give those rights to whoever must not have them.
--
-- Each is dropped first, since the database does not roll back what an interrupted migration has made, and MySQL knows no
-- `CREATE TRIGGER IF NOT EXISTS` before 8.0.29.

DROP TRIGGER IF EXISTS tcc_log_audit_is_never_changed;

CREATE TRIGGER tcc_log_audit_is_never_changed BEFORE UPDATE ON tcc_log_audit FOR EACH ROW
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the audit record is append-only';

DROP TRIGGER IF EXISTS tcc_log_audit_is_never_deleted;

CREATE TRIGGER tcc_log_audit_is_never_deleted BEFORE DELETE ON tcc_log_audit FOR EACH ROW
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the audit record is append-only';
