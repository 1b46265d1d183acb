//! tcc-coordinator
