-- Stock, one row for each SKU. Times are microseconds since 1970 in UTC.
-- The checks are the last guard: the books balance and nothing is oversold even if the code were wrong.
CREATE TABLE stock (
    sku        TEXT    NOT NULL PRIMARY KEY,
    initial    INTEGER NOT NULL CHECK (initial BETWEEN 0 AND 1000000000000000),
    available  INTEGER NOT NULL CHECK (available >= 0),
    frozen     INTEGER NOT NULL CHECK (frozen >= 0),
    sold       INTEGER NOT NULL CHECK (sold >= 0),
    updated_at INTEGER NOT NULL,
    CHECK (available + frozen + sold = initial)
) STRICT, WITHOUT ROWID;

-- Deliveries of goods, so that one that is reported twice is counted once.
CREATE TABLE stock_receipts (
    receipt_id  TEXT    NOT NULL PRIMARY KEY,
    sku         TEXT    NOT NULL,
    quantity    INTEGER NOT NULL CHECK (quantity > 0),
    received_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
