-- Stock, one row for each SKU. Times are microseconds since 1970 in UTC.
-- The checks are the last guard: the books balance and nothing is oversold even if the code were wrong.
CREATE TABLE IF NOT EXISTS stock (
    -- By its bytes: pages go in this order.
    sku        VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    initial    BIGINT NOT NULL CHECK (initial BETWEEN 0 AND 1000000000000000),
    available  BIGINT NOT NULL CHECK (available >= 0),
    frozen     BIGINT NOT NULL CHECK (frozen >= 0),
    sold       BIGINT NOT NULL CHECK (sold >= 0),
    updated_at BIGINT NOT NULL,
    CHECK (available + frozen + sold = initial)
) ENGINE = InnoDB;

-- Deliveries of goods, so that one that is reported twice is counted once.
CREATE TABLE IF NOT EXISTS stock_receipts (
    receipt_id  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    sku         VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    quantity    BIGINT NOT NULL CHECK (quantity > 0),
    received_at BIGINT NOT NULL,
    -- Random, of the report that inserted the row: an insert that finds its row there already looks the same to the client.
    attempt     BIGINT NOT NULL
) ENGINE = InnoDB;
