-- Stock of one SKU may be split over several rows, its buckets: what does not share a row need not wait for one. A SKU has one
-- bucket until it is given more, and everything that was there before is in bucket 0.
--
-- buckets: over how many the SKU's free stock is spread, those below this number. buckets_made: how many rows it has, never fewer
-- than it had, since what is frozen or sold stays where it is. Both are the same in each of its rows.
--
-- The database does not roll back what an interrupted migration has made, and MySQL knows no `ADD COLUMN IF NOT EXISTS`. This is
-- one statement, which is done wholly or not at all.
SET @inventory_add_buckets = IF(
    EXISTS (
        SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'stock' AND column_name = 'bucket'
    ),
    'DO 0',
    'ALTER TABLE stock
        ADD COLUMN bucket INT NOT NULL DEFAULT 0,
        ADD COLUMN buckets INT NOT NULL DEFAULT 1,
        ADD COLUMN buckets_made INT NOT NULL DEFAULT 1,
        ADD CONSTRAINT stock_buckets CHECK (bucket >= 0 AND bucket < buckets_made),
        ADD CONSTRAINT stock_buckets_made CHECK (buckets BETWEEN 1 AND buckets_made AND buckets_made <= 64),
        DROP PRIMARY KEY,
        ADD PRIMARY KEY (sku, bucket)'
);

PREPARE inventory_add_buckets FROM @inventory_add_buckets;

EXECUTE inventory_add_buckets;

DEALLOCATE PREPARE inventory_add_buckets;
