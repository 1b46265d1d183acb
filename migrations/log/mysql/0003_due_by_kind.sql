-- What is due and fresh is claimed apart from what is due and has stuck branches, so that many stuck transactions are never walked
-- through for a fresh one. One index as before, with the same entries: it costs an ordinary transaction next to nothing.
--
-- In one statement, which may be repeated: gateways of the version before find an index of this name at any time.
ALTER TABLE tcc_log_transactions
    DROP INDEX tcc_log_transactions_due,
    ADD INDEX tcc_log_transactions_due (has_stuck, due_at, gid);
