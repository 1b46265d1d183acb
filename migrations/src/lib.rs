//! tcc-migrations
