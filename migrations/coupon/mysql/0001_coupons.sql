-- Coupons. States: 1 issued, 2 locked, 3 used. Times are microseconds since 1970 in UTC.
CREATE TABLE IF NOT EXISTS coupons (
    -- By its bytes: pages go in this order.
    coupon_id      VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    user_id        VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    discount_minor BIGINT      NOT NULL CHECK (discount_minor BETWEEN 1 AND 1000000000),
    expires_at     BIGINT      NOT NULL,
    state          SMALLINT    NOT NULL DEFAULT 1 CHECK (state IN (1, 2, 3)),
    -- The transaction that locked or used it.
    gid            VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin,
    CHECK ((state = 1) = (gid IS NULL)),
    -- For listing one user's coupons.
    INDEX coupons_by_user (user_id, coupon_id)
) ENGINE = InnoDB;
