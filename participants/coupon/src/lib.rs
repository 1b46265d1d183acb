//! tcc-coupon
