-- Stock of one SKU may be split over several rows, its buckets. A SKU has one bucket until it is given more, and everything that
-- was there before is in bucket 0. SQLite cannot change a table's key, so the table is made anew.
CREATE TABLE stock_in_buckets (
    sku          TEXT    NOT NULL,
    initial      INTEGER NOT NULL CHECK (initial BETWEEN 0 AND 1000000000000000),
    available    INTEGER NOT NULL CHECK (available >= 0),
    frozen       INTEGER NOT NULL CHECK (frozen >= 0),
    sold         INTEGER NOT NULL CHECK (sold >= 0),
    updated_at   INTEGER NOT NULL,
    bucket       INTEGER NOT NULL DEFAULT 0 CHECK (bucket >= 0 AND bucket < buckets_made),
    -- Over how many the SKU's free stock is spread: those below this number. The same in each of its rows.
    buckets      INTEGER NOT NULL DEFAULT 1 CHECK (buckets BETWEEN 1 AND buckets_made),
    -- How many rows it has: never fewer than it had, since what is frozen or sold stays where it is. The same in each of its rows.
    buckets_made INTEGER NOT NULL DEFAULT 1 CHECK (buckets_made <= 64),
    PRIMARY KEY (sku, bucket),
    CHECK (available + frozen + sold = initial)
) STRICT, WITHOUT ROWID;

INSERT INTO stock_in_buckets (sku, initial, available, frozen, sold, updated_at)
SELECT sku, initial, available, frozen, sold, updated_at FROM stock;

DROP TABLE stock;

ALTER TABLE stock_in_buckets RENAME TO stock;
