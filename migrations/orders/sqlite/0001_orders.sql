-- Orders as the gateway keeps them: each row is the business side of an order's own branch, changed in the same local
-- transactions as the branch's row in tcc_branches.
CREATE TABLE orders (
    -- Also the gid of its transaction, as its 36 characters: UUIDv7 text sorts by the time of minting.
    order_id  TEXT    NOT NULL PRIMARY KEY,
    -- Unique for its initiator as long as the transaction is kept; not for ever, and so not here.
    order_key TEXT    NOT NULL,
    initiator TEXT    NOT NULL,
    user_id   TEXT    NOT NULL,
    -- [["sku", quantity], ...] in sku order.
    lines     TEXT    NOT NULL CHECK (json_valid(lines)),
    coupon_id TEXT,
    -- 1: it was to wait for ConfirmOrder or CancelOrder.
    hold      INTEGER NOT NULL CHECK (hold IN (0, 1)),
    -- 1: every branch of it was seen reserved. That stays so until it is decided.
    held      INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),
    -- 1 tried, 3 confirmed, 4 cancelled, as in tcc_branches. While it is 1, the transaction knows more.
    status    INTEGER NOT NULL CHECK (status IN (1, 3, 4)),
    CHECK (held <= hold)
) STRICT, WITHOUT ROWID;

-- For listing one user's orders.
CREATE INDEX orders_by_user ON orders (user_id, order_id);
