-- Orders as the gateway keeps them: each row is the business side of an order's own branch, changed in the same local
-- transactions as the branch's row in tcc_branches.
CREATE TABLE orders (
    -- Also the gid of its transaction, as its 36 characters: UUIDv7 text sorts by the time of minting, byte by byte.
    order_id  TEXT     COLLATE "C" NOT NULL PRIMARY KEY,
    -- Unique for its initiator as long as the transaction is kept; not for ever, and so not here.
    order_key TEXT     COLLATE "C" NOT NULL,
    initiator TEXT     COLLATE "C" NOT NULL,
    user_id   TEXT     COLLATE "C" NOT NULL,
    -- [["sku", quantity], ...] in sku order, kept as the text that was written. What is no JSON at all is refused by the cast.
    lines     TEXT     NOT NULL CHECK (lines::json IS NOT NULL),
    coupon_id TEXT     COLLATE "C",
    -- It was to wait for ConfirmOrder or CancelOrder.
    hold      BOOLEAN  NOT NULL,
    -- Every branch of it was seen reserved. That stays so until it is decided.
    held      BOOLEAN  NOT NULL DEFAULT FALSE,
    -- 1 tried, 3 confirmed, 4 cancelled, as in tcc_branches. While it is 1, the transaction knows more.
    status    SMALLINT NOT NULL CHECK (status IN (1, 3, 4)),
    CHECK (held <= hold)
);

-- For listing one user's orders.
CREATE INDEX orders_by_user ON orders (user_id, order_id);
