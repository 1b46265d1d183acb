//! tcc-cluster
