-- Which statement over many rows changed a row last: there is no other way to be told what a statement changed.
--
-- The database does not roll back what an interrupted migration has made, and MySQL knows no `ADD COLUMN IF NOT EXISTS`.
SET @tcc_add_touched_by = IF(
    EXISTS (
        SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'tcc_branches' AND column_name = 'touched_by'
    ),
    'DO 0',
    'ALTER TABLE tcc_branches ADD COLUMN touched_by BIGINT'
);

PREPARE tcc_add_touched_by FROM @tcc_add_touched_by;

EXECUTE tcc_add_touched_by;

DEALLOCATE PREPARE tcc_add_touched_by;
