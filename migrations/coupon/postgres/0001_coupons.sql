-- Coupons. States: 1 issued, 2 locked, 3 used. Times are microseconds since 1970 in UTC.
CREATE TABLE coupons (
    -- By its bytes, whatever the database's own collation: pages go in this order.
    coupon_id      TEXT     COLLATE "C" NOT NULL PRIMARY KEY,
    user_id        TEXT     COLLATE "C" NOT NULL,
    discount_minor BIGINT   NOT NULL CHECK (discount_minor BETWEEN 1 AND 1000000000),
    expires_at     BIGINT   NOT NULL,
    state          SMALLINT NOT NULL DEFAULT 1 CHECK (state IN (1, 2, 3)),
    -- The transaction that locked or used it.
    gid            TEXT     COLLATE "C" CHECK ((state = 1) = (gid IS NULL))
);

-- For listing one user's coupons.
CREATE INDEX coupons_by_user ON coupons (user_id, coupon_id);
