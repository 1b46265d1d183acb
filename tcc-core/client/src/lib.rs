//! tcc-client
