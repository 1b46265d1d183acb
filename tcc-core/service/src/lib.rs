//! tcc-service
