//! tcc-participant
