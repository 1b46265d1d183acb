-- A transaction's row is changed when it is decided and when it ends. With room on its page the new version stays there, and where no
-- indexed column changes (as in a decision that comes soon) no index is touched.
ALTER TABLE tcc_log_transactions SET (fillfactor = 50);
