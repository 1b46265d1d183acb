-- Orders as the gateway keeps them: each row is the business side of an order's own branch, changed in the same local
-- transactions as the branch's row in tcc_branches.
CREATE TABLE IF NOT EXISTS orders (
    -- Also the gid of its transaction, as its 36 characters: UUIDv7 text sorts by the time of minting, byte by byte.
    order_id  VARCHAR(36)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    -- Unique for its initiator as long as the transaction is kept; not for ever, and so not here.
    order_key VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    initiator VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    user_id   VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    -- [["sku", quantity], ...] in sku order, kept as the text that was written.
    `lines`   TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (JSON_VALID(`lines`)),
    coupon_id VARCHAR(64)  CHARACTER SET ascii COLLATE ascii_bin,
    -- 1: it was to wait for ConfirmOrder or CancelOrder.
    hold      BOOLEAN      NOT NULL CHECK (hold IN (0, 1)),
    -- 1: every branch of it was seen reserved. That stays so until it is decided.
    held      BOOLEAN      NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),
    -- 1 tried, 3 confirmed, 4 cancelled, as in tcc_branches. While it is 1, the transaction knows more.
    status    SMALLINT     NOT NULL CHECK (status IN (1, 3, 4)),
    CHECK (held <= hold),
    -- For listing one user's orders.
    INDEX orders_by_user (user_id, order_id)
) ENGINE = InnoDB;
