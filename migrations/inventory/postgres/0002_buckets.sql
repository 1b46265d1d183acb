-- Stock of one SKU may be split over several rows, its buckets: what does not share a row need not wait for one. A SKU has one
-- bucket until it is given more, and everything that was there before is in bucket 0.
ALTER TABLE stock
    ADD COLUMN bucket INTEGER NOT NULL DEFAULT 0,
    -- Over how many the SKU's free stock is spread: those below this number. The same in each of its rows.
    ADD COLUMN buckets INTEGER NOT NULL DEFAULT 1,
    -- How many rows it has: never fewer than it had, since what is frozen or sold stays where it is. The same in each of its rows.
    ADD COLUMN buckets_made INTEGER NOT NULL DEFAULT 1,
    ADD CONSTRAINT stock_buckets CHECK (bucket >= 0 AND bucket < buckets_made),
    ADD CONSTRAINT stock_buckets_made CHECK (buckets BETWEEN 1 AND buckets_made AND buckets_made <= 64),
    DROP CONSTRAINT stock_pkey,
    ADD CONSTRAINT stock_pkey PRIMARY KEY (sku, bucket);
