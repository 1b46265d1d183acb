-- When the coordinator first said of a row that is still tried that it has forgotten the transaction: an operator must decide.
ALTER TABLE tcc_branches ADD COLUMN forgotten_at INTEGER;

-- What waits for an operator, in the order in which it is listed. Nearly always empty.
CREATE INDEX tcc_branches_forgotten ON tcc_branches (gid, branch_id) WHERE status = 1 AND forgotten_at IS NOT NULL;
