-- Coupons. States: 1 issued, 2 locked, 3 used. Times are microseconds since 1970 in UTC.
CREATE TABLE coupons (
    coupon_id      TEXT    NOT NULL PRIMARY KEY,
    user_id        TEXT    NOT NULL,
    discount_minor INTEGER NOT NULL CHECK (discount_minor BETWEEN 1 AND 1000000000),
    expires_at     INTEGER NOT NULL,
    state          INTEGER NOT NULL DEFAULT 1 CHECK (state IN (1, 2, 3)),
    -- The transaction that locked or used it.
    gid            TEXT    CHECK ((state = 1) = (gid IS NULL))
) STRICT, WITHOUT ROWID;

-- For listing one user's coupons.
CREATE INDEX coupons_by_user ON coupons (user_id, coupon_id);
