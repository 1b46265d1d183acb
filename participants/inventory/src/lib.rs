//! tcc-inventory
