-- Stock, one row for each SKU. Times are microseconds since 1970 in UTC.
-- The checks are the last guard: the books balance and nothing is oversold even if the code were wrong.
CREATE TABLE stock (
    -- By its bytes, whatever the database's own collation: pages go in this order.
    sku        TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    initial    BIGINT NOT NULL CHECK (initial BETWEEN 0 AND 1000000000000000),
    available  BIGINT NOT NULL CHECK (available >= 0),
    frozen     BIGINT NOT NULL CHECK (frozen >= 0),
    sold       BIGINT NOT NULL CHECK (sold >= 0),
    updated_at BIGINT NOT NULL,
    CHECK (available + frozen + sold = initial)
)
-- A hot row is rewritten all the time: with room on its page it stays there, and its index entry too.
WITH (fillfactor = 50);

-- Deliveries of goods, so that one that is reported twice is counted once.
CREATE TABLE stock_receipts (
    receipt_id  TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    sku         TEXT   COLLATE "C" NOT NULL,
    quantity    BIGINT NOT NULL CHECK (quantity > 0),
    received_at BIGINT NOT NULL
);
