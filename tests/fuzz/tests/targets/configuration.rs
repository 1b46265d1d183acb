//! Configuration files: read whole or not at all, and no error or printed setting tells a password.
