-- A transaction's row is changed when it is decided and when it ends. With room on its page the new version stays there, and unless
-- an indexed column changes (a decision changes none) no index is touched.
ALTER TABLE tcc_log_transactions SET (fillfactor = 50);
