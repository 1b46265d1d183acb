//! tcc-gateway
