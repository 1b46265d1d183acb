-- What is due and fresh is claimed apart from what is due and has stuck branches, so that many stuck transactions are never walked
-- through for a fresh one. One index as before, with the same entries: it costs an ordinary transaction nothing.
DROP INDEX tcc_log_transactions_due;

CREATE INDEX tcc_log_transactions_due ON tcc_log_transactions (has_stuck, next_attempt_at) WHERE finished_at IS NULL;
