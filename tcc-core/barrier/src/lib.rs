//! tcc-barrier
